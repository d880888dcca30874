import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble import Blender, Ensemble, FakeScorer, SavedScorer, parse_battles
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.probabilities import softmax, swap_classes
from lmsys_ensemble.runtime.swapping import average_passes, closest_to_call
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY


class Counting(FakeScorer):
    """Remembers the texts that it scored."""

    def __init__(self, seed=0, *, name="counting"):
        super().__init__(seed, name=name)
        self.seen = []

    def score(self, battles):
        self.seen += battles.content_hashes()
        return super().score(battles)


def both_passes(battles, seed):
    forward = softmax(FakeScorer(seed).score(battles))
    return forward, swap_classes(softmax(FakeScorer(seed).score(battles.swapped())), THREE_WAY)


@pytest.fixture
def battles(make_battles):
    rows = [(f"question {i}", f"yes {i % 7}", f"no {i % 5}") for i in range(40)]
    return make_battles(*rows, *rows[:3], ("same", "answer", "answer"), ("question 0", "no 0", "yes 0"))


@pytest.mark.parametrize("space", ["probability", "log"])
def test_all_rows_are_scored_both_ways_each_text_once_and_averaged(battles, space):
    scorers = [Counting(seed, name=str(seed)) for seed in range(2)]
    ensemble = Ensemble(scorers)
    members = ensemble.member_probabilities(battles, swap="all", swap_space=space)
    distinct = {*battles.content_hashes(), *battles.swapped().content_hashes()}
    for seed, scorer in enumerate(scorers):
        forward, backward = both_passes(battles, seed)
        mean = (forward + backward) / 2 if space == "probability" else softmax(np.log(forward) + np.log(backward), 2)
        assert members[scorer.name] == pytest.approx(mean, abs=1e-6)
        assert sorted(scorer.seen) == sorted(distinct)
    assert ensemble.summary_.swapped_rows == len(battles)


def test_exchanging_all_responses_exchanges_the_prediction(battles):
    ensemble = Ensemble([FakeScorer(0, name="a"), FakeScorer(1, name="b")])
    there, back = (ensemble.predict_proba(rows, swap="all") for rows in (battles, battles.swapped()))
    assert np.array_equal(there, swap_classes(back, THREE_WAY))


def test_adaptive_takes_the_rows_that_the_blend_finds_closest(battles):
    scorers = [Counting(seed, name=str(seed)) for seed in range(2)]
    ensemble = Ensemble(scorers, Blender(weights=[3, 1]))
    predicted = ensemble.predict_proba(battles, swap="adaptive", swap_share=0.25, swap_space="probability")
    passes = [both_passes(battles, seed) for seed in range(2)]
    forward = 0.75 * passes[0][0] + 0.25 * passes[1][0]
    both = 0.75 * (passes[0][0] + passes[0][1]) / 2 + 0.25 * (passes[1][0] + passes[1][1]) / 2
    # A second pass may also be there because it is another row's first; it counts when rows are chosen.
    twice = np.isin(battles.swapped().content_hashes(), battles.content_hashes())
    known = np.where(twice[:, None], both, forward)
    chosen = np.argsort(np.abs(known[:, 0] - known[:, 1]), kind="stable")[: -(-len(battles) // 4)]
    twice |= np.isin(battles.swapped().content_hashes(), battles.swapped().take(chosen).content_hashes())
    assert predicted == pytest.approx(np.where(twice[:, None], both, forward), abs=1e-6)
    assert ensemble.summary_.swapped_rows == twice.sum()
    wanted = {*battles.content_hashes(), *battles.swapped().take(chosen).content_hashes()}
    for scorer in scorers:
        assert sorted(scorer.seen) == sorted(wanted)


@pytest.mark.parametrize("share", [0, 1])
def test_adaptive_of_none_or_all_is_off_or_all(battles, share):
    ensemble = Ensemble([FakeScorer(0, name="a"), FakeScorer(1, name="b")])
    adaptive = ensemble.member_probabilities(battles, swap="adaptive", swap_share=share)
    plain = ensemble.member_probabilities(battles, swap="all" if share else "off")
    for name, values in plain.items():
        rows = slice(None) if share else ~np.isin(battles.swapped().content_hashes(), battles.content_hashes())
        assert np.array_equal(adaptive[name][rows], values[rows])


@given(st.integers(1, 40), st.floats(0, 1))
def test_the_closest_rows_come_first(n_rows, share):
    probabilities = np.random.default_rng(n_rows).dirichlet(np.ones(3), n_rows)
    chosen = closest_to_call(probabilities, share)
    apart = np.abs(probabilities[:, 0] - probabilities[:, 1])
    assert len(chosen) == int(np.ceil(share * n_rows))
    assert apart[chosen].tolist() == sorted(apart)[: len(chosen)]


@pytest.mark.parametrize("task", [THREE_WAY, TWO_WAY])
def test_a_row_without_a_second_pass_keeps_its_first_and_one_without_a_first_has_none(task):
    forward = np.random.default_rng(0).normal(size=(3, task.n_classes)).astype(np.float32)
    backward = forward[:, list(task.swap_order)].copy()
    backward[1], forward[2] = np.nan, np.nan
    for space in ("probability", "log"):
        averaged = average_passes(forward, backward, task, space)
        assert averaged[:2] == pytest.approx(softmax(forward)[:2])
        assert np.isnan(averaged[2]).all()


@pytest.mark.parametrize("swap", ["all", "adaptive"])
def test_scorers_that_read_no_texts_cannot_be_asked_for_a_second_pass(battles_table, tmp_path, swap):
    Ensemble([FakeScorer()]).predict(battles_table).to_csv(tmp_path / "saved.csv", index=False)
    ensemble = Ensemble([FakeScorer(), SavedScorer(str(tmp_path / "saved.csv"))])
    with pytest.raises(ConfigError, match="saved would give the same probabilities for exchanged responses"):
        ensemble.predict(parse_battles(battles_table), swap=swap)
