"""Time budgets, on a clock that only moves when a scorer works."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble import Blender, FakeScorer
from lmsys_ensemble.blending.blender import MissingMemberWarning
from lmsys_ensemble.hosting.budget import Deadline, Speed, order_of_need, split_to_fit
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.runtime import items
from lmsys_ensemble.runtime.margins import margins
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.run import Run
from lmsys_ensemble.runtime.selection import closest_to_call


class HandClock:
    """Seconds that pass when somebody says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Timed(FakeScorer):
    """Takes a second for a thousand characters, and as long as it is told to for loading."""

    def __init__(self, seed=0, *, clock, name="timed", rate=1.0, load_seconds=0.0, sudden=None):
        super().__init__(seed, name=name)
        self.clock = clock
        self.rate = rate
        self.load_seconds = load_seconds
        self.sudden = sudden
        self.n_scored = 0
        self.seen = []

    def load(self, device=None):
        self.clock.now += self.load_seconds

    def score(self, battles):
        logits = FakeScorer(self.seed).score(battles)
        for battle in battles:
            slower = 100 if self.sudden is not None and self.n_scored >= self.sudden else 1
            self.clock.now += slower * self.rate * length(battle) / 1000
            self.progress.advance(1, 0)
            self.n_scored += 1
            self.seen.append(battle.id)
        return logits


class Kept(Timed):
    """May be journalled."""

    def fingerprint(self):
        return {"seed": self.seed}


def length(battle):
    return sum(len(turn) for turns in (battle.prompt, battle.response_a, battle.response_b) for turn in turns)


@pytest.fixture
def battles(make_battles):
    generator = np.random.default_rng(0)
    return make_battles(*[(f"{i} " + "q" * int(generator.integers(20, 400)), "yes", "no") for i in range(80)])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(items, "MIN_CHUNK", 500)


def run(scorers, battles, budget_s, blender=None, **options):
    """Return the outcome and the seconds that it took, and make sure that it is whole."""
    clock = scorers[0].clock
    start = clock.now
    running = Run(
        scorers, battles, RunOptions(time_budget_s=budget_s, **options),
        blender=blender, display="off", devices=["cpu"], clock=clock,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome = running.execute()
    assert {warning.category for warning in caught} <= {MissingMemberWarning}
    assert bool(caught) == bool((outcome.missing != "").any())
    assert outcome.blended.shape == (len(battles), 3)
    assert outcome.blended.sum(axis=1) == pytest.approx(np.ones(len(battles)))
    assert outcome.summary.fallback_rows == (outcome.missing != "").sum()
    return outcome, clock.now - start


def work_of(battles):
    return sum(length(battle) for battle in battles) / 1000


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", ["off", "all", "adaptive"])
def test_with_enough_time_nothing_is_left_out(battles, swap):
    clock = HandClock()
    scorers = [Timed(seed, clock=clock, name=str(seed)) for seed in range(2)]
    outcome, _ = run(scorers, battles, 10 * work_of(battles), swap=swap)
    plain = Run(scorers, battles, RunOptions(swap=swap), display="off").execute()
    assert (outcome.missing == "").all()
    assert np.array_equal(outcome.blended, plain.blended)


def test_second_passes_are_the_first_to_be_left_out_least_close_rows_first(battles):
    clock = HandClock()
    work = work_of(battles)
    outcome, seconds = run([Timed(clock=clock)], battles, 1.5 * work, swap="all")
    assert seconds <= 1.5 * work
    assert outcome.present.all()
    swapped = outcome.missing == ""
    assert set(outcome.missing[~swapped]) == {"timed (swapped)"}
    assert 0.25 < swapped.mean() < 0.75
    blended = softmax(FakeScorer(0).score(battles))
    apart = np.abs(blended[:, 0] - blended[:, 1])
    # All that were taken are closer than all that were not, but for the last few, of which the short ones still fit.
    assert np.sort(apart[swapped])[:-10].max() < apart[~swapped].min()
    assert outcome.summary.swapped_rows == swapped.sum()


@pytest.mark.parametrize("weights", [[3, 1], [1, 3]])
def test_then_the_scorer_of_lower_weight_is_left_out_where_the_other_is_surest(battles, weights):
    clock = HandClock()
    work = work_of(battles)
    scorers = [Timed(seed, clock=clock, name=str(seed)) for seed in range(2)]
    outcome, seconds = run(scorers, battles, 1.5 * work, Blender(weights=weights))
    assert seconds <= 1.5 * work
    main = int(np.argmax(weights))
    assert outcome.present[:, main].all()
    both = outcome.present[:, 1 - main]
    assert 0.2 < both.mean() < 0.8
    assert set(outcome.missing[~both]) == {str(1 - main)}
    margin = margins(softmax(FakeScorer(main).score(battles)))
    assert np.median(margin[both]) < margin[~both].min()
    alone = softmax(FakeScorer(main).score(battles))
    assert outcome.blended[~both] == pytest.approx(alone[~both])


def test_without_time_for_all_rows_as_many_as_can_be_get_a_prediction_and_the_rest_their_mean(battles):
    clock = HandClock()
    work = work_of(battles)
    outcome, seconds = run([Timed(clock=clock)], battles, 0.3 * work)
    assert seconds <= 0.3 * work
    done = outcome.present[:, 0]
    lengths = np.array([length(battle) for battle in battles])
    assert done.mean() > 0.4  # far more than three tenths, as the short ones came first
    assert np.median(lengths[done]) < np.median(lengths[~done])
    assert outcome.blended[~done] == pytest.approx(np.tile(outcome.blended[done].mean(axis=0), (int((~done).sum()), 1)))
    assert outcome.summary.scorers[0].unscored_rows == (~done).sum()


def test_a_scorer_that_suddenly_slows_down_is_stopped_within_a_batch(battles):
    clock = HandClock()
    outcome, seconds = run([Timed(clock=clock, sudden=20)], battles, work_of(battles))
    assert seconds <= work_of(battles) + 100 * max(length(battle) for battle in battles) / 1000
    assert 0 < outcome.present.sum() < len(battles)


def test_when_loading_takes_all_the_time_the_result_is_still_whole(battles):
    clock = HandClock()
    scorer = Timed(clock=clock, load_seconds=50.0)
    outcome, _ = run([scorer], battles, 20.0)
    assert not outcome.present.any()
    assert outcome.blended == pytest.approx(np.full((len(battles), 3), 1 / 3))
    assert scorer.seen == []


def test_a_scorer_that_cannot_be_loaded_in_time_is_not_begun(battles):
    clock = HandClock()
    work = work_of(battles)
    scorers = [Timed(seed, clock=clock, name=str(seed), load_seconds=5.0) for seed in range(2)]
    outcome, seconds = run(scorers, battles, work + 6.0, Blender(weights=[2, 1]))
    assert seconds == pytest.approx(work + 5.0)
    assert outcome.present[:, 0].all()
    assert scorers[1].seen == []


@pytest.mark.parametrize("swap", ["off", "all", "adaptive"])
@pytest.mark.parametrize("share", [0.5, 0.9, 1.3])
def test_what_a_budget_cut_off_is_made_up_for_by_a_run_without_one(battles, tmp_path, swap, share):
    clock = HandClock()
    scorers = [Kept(seed, clock=clock, name=str(seed)) for seed in range(2)]
    work = len(scorers) * work_of(battles)
    outcome, _ = run(scorers, battles, share * work, swap=swap, run_dir=tmp_path / "run")
    assert outcome.summary.time_was_up == bool((outcome.missing != "").any())
    assert outcome.summary.time_was_up or (share, swap) == (1.3, "off")
    resumed, _ = run(scorers, battles, 10 * work, swap=swap, run_dir=tmp_path / "run")
    assert not resumed.summary.time_was_up
    whole = Run(scorers, battles, RunOptions(swap=swap), display="off").execute()
    assert np.array_equal(resumed.blended, whole.blended)
    assert resumed.summary.swapped_rows == whole.summary.swapped_rows


def test_rows_that_were_chosen_and_not_scored_again_are_named(battles):
    clock = HandClock()
    outcome, _ = run([Timed(clock=clock)], battles, 1.2 * work_of(battles), swap="adaptive")
    assert outcome.present.all()
    chosen = closest_to_call(softmax(FakeScorer(0).score(battles)), 0.5, np.ones(len(battles), dtype=bool))
    missing = np.flatnonzero(outcome.missing == "timed (swapped)")
    assert 0 < len(missing) < len(chosen)
    assert set(missing) < set(chosen)
    assert outcome.summary.swapped_rows == len(chosen) - len(missing)
    assert outcome.summary.time_was_up


@given(st.floats(0.01, 3), st.sampled_from(["off", "all", "adaptive"]), st.integers(1, 3))
def test_a_run_is_never_later_than_its_budget_by_more_than_a_row(share, swap, n_scorers):
    generator = np.random.default_rng(n_scorers)
    rows = [(f"{i} " + "q" * int(generator.integers(0, 300)), "yes", "no") for i in range(30)]
    battles = items_battles(rows)
    clock = HandClock()
    scorers = [Timed(seed, clock=clock, name=str(seed)) for seed in range(n_scorers)]
    budget_s = share * n_scorers * work_of(battles)
    _, seconds = run(scorers, battles, budget_s, swap=swap)
    assert seconds <= budget_s + max(length(battle) for battle in battles) / 1000


def items_battles(rows):
    from lmsys_ensemble.data.battles import Battles

    prompts, responses_a, responses_b = ([(row[field],) for row in rows] for field in range(3))
    import pandas as pd

    return Battles(pd.RangeIndex(len(rows)), prompts, responses_a, responses_b)


# --- parts ----------------------------------------------------------------------------------------------------------


def test_a_deadline_counts_down_and_is_over():
    clock = HandClock()
    deadline = Deadline(clock.now + 10, clock)
    assert deadline.is_set
    assert (deadline.seconds_left, deadline.is_over) == (10, False)
    clock.now += 10
    assert (deadline.seconds_left, deadline.is_over) == (0, True)
    endless = Deadline(clock=clock)
    assert (endless.is_set, endless.is_over, endless.seconds_left) == (False, False, np.inf)


def test_a_speed_follows_the_latest_chunks():
    speed = Speed()
    assert not speed.is_known
    assert speed.seconds_per_cost == 0
    for _ in range(50):
        speed.add(100, 1)
    assert speed.seconds_per_cost == pytest.approx(0.01)
    for _ in range(20):
        speed.add(100, 3)
    assert speed.seconds_per_cost == pytest.approx(0.03, rel=0.02)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30), st.floats(0.01, 2), st.floats(0, 100))
def test_only_what_fits_is_begun_and_half_of_the_time_is_left_where_there_is_a_choice(costs, per_cost, left):
    costs = np.array(costs)
    possible, n_now = split_to_fit(costs, per_cost, left)
    assert np.array_equal(possible, costs * per_cost <= left)
    seconds = costs[possible][:n_now] * per_cost
    assert n_now <= 1 or seconds.sum() <= left / 2 + 1e-9
    assert (n_now == 0) == (not possible.any())


def test_need_is_first_what_nothing_is_known_of_shortest_first_then_the_smallest_margin():
    margin = np.array([0.5, np.nan, 0.1, np.nan, 0.9])
    assert order_of_need(margin, np.array([1, 9, 1, 3, 1])).tolist() == [3, 1, 2, 0, 4]
