import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble import (
    Blender,
    Ensemble,
    FakeScorer,
    FaultyScorer,
    GemmaScorer,
    LlamaScorer,
    SavedScorer,
    parse_battles,
)
from lmsys_ensemble.blending.blender import MissingMemberWarning
from lmsys_ensemble.errors import ConfigError, JournalError, ScoringError
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.journal.status import read_run
from lmsys_ensemble.probabilities import renormalise, softmax, swap_classes
from lmsys_ensemble.runtime import items
from lmsys_ensemble.runtime.outcome import Passes
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from tests.tiny import make_battles as make_real_battles


class Counting(FakeScorer):
    """Remembers the texts that it scored."""

    def __init__(self, seed=0, *, name="counting"):
        super().__init__(seed, name=name)
        self.seen = []

    def score(self, battles):
        self.seen += battles.content_hashes()
        return super().score(battles)


def both_passes(battles, seed):
    original = softmax(FakeScorer(seed).score(battles))
    return original, swap_classes(softmax(FakeScorer(seed).score(battles.swapped())), THREE_WAY)


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
        first, second = both_passes(battles, seed)
        mean = (first + second) / 2 if space == "probability" else softmax(np.log(first) + np.log(second), 2)
        assert members[scorer.name] == pytest.approx(mean, abs=1e-6)
        assert sorted(scorer.seen) == sorted(distinct)
    assert ensemble.summary_.swapped_rows == len(battles)


def test_swapping_all_responses_swaps_the_prediction(battles):
    ensemble = Ensemble([FakeScorer(0, name="a"), FakeScorer(1, name="b")])
    there, back = (ensemble.predict_proba(rows, swap="all") for rows in (battles, battles.swapped()))
    assert np.array_equal(there, swap_classes(back, THREE_WAY))


def expected_adaptive(battles, share):
    """Return what two scorers weighted 3 to 1 say, and the rows that are scored twice, worked out by hand."""
    passes = [both_passes(battles, seed) for seed in range(2)]
    original = 0.75 * passes[0][0] + 0.25 * passes[1][0]
    both = 0.75 * (passes[0][0] + passes[0][1]) / 2 + 0.25 * (passes[1][0] + passes[1][1]) / 2
    chosen = np.argsort(np.abs(original[:, 0] - original[:, 1]), kind="stable")[: int(np.ceil(share * len(battles)))]
    hashes = np.array(battles.content_hashes())
    twice = np.isin(hashes, hashes[chosen])  # a row with the texts of one that is chosen is no other row
    return np.where(twice[:, None], both, original), twice


def test_adaptive_takes_the_rows_that_the_blend_of_original_passes_finds_closest(battles):
    scorers = [Counting(seed, name=str(seed)) for seed in range(2)]
    ensemble = Ensemble(scorers, Blender(weights=[3, 1]))
    predicted = ensemble.predict_proba(battles, swap="adaptive", swap_share=0.25, swap_space="probability")
    expected, twice = expected_adaptive(battles, 0.25)
    assert predicted == pytest.approx(expected, abs=1e-6)
    assert ensemble.summary_.swapped_rows == twice.sum()
    wanted = {*battles.content_hashes(), *np.array(battles.swapped().content_hashes())[twice]}
    for scorer in scorers:
        assert sorted(scorer.seen) == sorted(wanted)


@pytest.mark.parametrize("before", ["off", "all", "adaptive"])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
def test_what_earlier_runs_left_of_swapped_passes_changes_neither_the_choice_nor_the_result(
    battles, tmp_path, before, share
):
    scorers = [Counting(seed, name=str(seed)) for seed in range(2)]
    ensemble = Ensemble(scorers, Blender(weights=[3, 1]))
    ensemble.predict_proba(battles, run_dir=tmp_path / "run", swap=before)
    options = {"swap": "adaptive", "swap_share": share, "swap_space": "probability"}
    predicted = ensemble.predict_proba(battles, run_dir=tmp_path / "run", **options)
    assert np.array_equal(predicted, ensemble.predict_proba(battles, **options))
    expected, twice = expected_adaptive(battles, share)
    assert predicted == pytest.approx(expected, abs=1e-6)
    assert ensemble.summary_.swapped_rows == twice.sum()


@pytest.mark.parametrize("n_more", [1, 4])
def test_real_models_give_the_same_bits_whether_their_swapped_passes_were_interrupted(
    checkpoints, tmp_path, monkeypatch, n_more
):
    def make_ensemble():
        kinds = {"llama": LlamaScorer, "gemma2": GemmaScorer}
        return Ensemble(
            [
                kind(
                    str(checkpoints.base(name)),
                    adapter=str(checkpoints.adapter(name)),
                    name=name,
                    device="cpu",
                    dtype="bfloat16",
                    max_tokens=120,
                    tokens_per_batch=300,
                    template="turns",
                )
                for name, kind in kinds.items()
            ],
            devices=["cpu", "cpu"],
        )

    monkeypatch.setattr(items, "MIN_CHUNK", 500)
    battles, commit, commits = make_real_battles(24), Journal.commit, []
    whole = make_ensemble().predict_proba(battles, swap="adaptive", run_dir=tmp_path / "whole")
    n_first = sum(report.n_chunks for report in read_run(tmp_path / "whole").scorers) * 2 // 3

    def interrupted(self, *arguments, **options):
        commits.append(arguments)
        if len(commits) > n_first + n_more:
            raise JournalError("the disk is full")
        commit(self, *arguments, **options)

    monkeypatch.setattr(Journal, "commit", interrupted)
    with pytest.raises(JournalError, match="the disk is full"):
        make_ensemble().predict_proba(battles, swap="adaptive", run_dir=tmp_path / "run")
    monkeypatch.setattr(Journal, "commit", commit)
    n_planned = [read_run(tmp_path / name).n_planned_chunks for name in ("whole", "run")]
    assert n_planned[0] == n_planned[1]  # rows had been chosen when it was interrupted
    resumed = make_ensemble()
    assert np.array_equal(whole, resumed.predict_proba(battles, swap="adaptive", run_dir=tmp_path / "run"))
    assert resumed.summary_.swapped_rows == 12
    assert np.array_equal(whole, make_ensemble().predict_proba(battles, swap="adaptive"))


class Together(FakeScorer):
    """The numbers of a row depend a little on what is scored with it, as a model's do; fails after some calls."""

    def __init__(self, n_calls=None, *, name="together"):
        super().__init__(name=name)
        self.n_calls = n_calls

    def fingerprint(self):
        return {"together": True}

    def score(self, battles):
        if self.n_calls is not None:
            self.n_calls -= 1
            if self.n_calls < 0:
                raise RuntimeError("interrupted")
        generator = np.random.default_rng([int(digest, 16) for digest in battles.content_hashes()])
        return super().score(battles) + 1e-3 * generator.standard_normal(3).astype(np.float32)


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("n_twins", [10, 30])
def test_a_run_that_was_interrupted_anywhere_makes_the_same_batches_where_rows_are_others_swapped(
    make_battles, tmp_path, monkeypatch, share, n_twins
):
    monkeypatch.setattr(items, "MIN_CHUNK", 60)
    rows = [(f"question {row} {'long ' * (row % 9)}", f"yes {row % 7}", f"no {row % 5}") for row in range(30)]
    battles = make_battles(*rows, *[(prompt, b, a) for prompt, a, b in rows[:n_twins]])
    options = {"swap": "adaptive", "swap_share": share}
    whole = Ensemble([Together()], devices=["cpu"])
    expected = whole.predict_proba(battles, **options)
    n_chunks = whole.summary_.scorers[0].chunks
    for n_calls in range(n_chunks):
        options["run_dir"] = tmp_path / str(n_calls)
        with pytest.raises(ScoringError, match="interrupted"):
            Ensemble([Together(n_calls)], devices=["cpu"]).predict_proba(battles, **options)
        assert np.array_equal(expected, Ensemble([Together()], devices=["cpu"]).predict_proba(battles, **options))


@pytest.mark.parametrize("share", [0, 1])
def test_adaptive_of_none_or_all_is_off_or_all(battles, share):
    ensemble = Ensemble([FakeScorer(0, name="a"), FakeScorer(1, name="b")])
    adaptive = ensemble.member_probabilities(battles, swap="adaptive", swap_share=share)
    plain = ensemble.member_probabilities(battles, swap="all" if share else "off")
    for name, values in plain.items():
        assert np.array_equal(adaptive[name], values)


@pytest.mark.parametrize("task", [THREE_WAY, TWO_WAY])
def test_a_row_without_a_swapped_pass_keeps_its_original_and_one_without_an_original_has_none(task):
    original = np.random.default_rng(0).normal(size=(3, task.n_classes)).astype(np.float32)
    swapped = original[:, list(task.swap_order)].copy()
    swapped[1], original[2] = np.nan, np.nan
    for space in ("probability", "log"):
        averaged = Passes(original, swapped).average(task, space)
        assert averaged[:2] == pytest.approx(softmax(original)[:2])
        assert np.isnan(averaged[2]).all()


@given(st.integers(0, 1_000), st.floats(0.1, 8))
def test_the_log_space_average_is_the_normalised_geometric_mean(seed, spread):
    original, swapped = np.random.default_rng(seed).normal(scale=spread, size=(2, 50, 3)).astype(np.float32)
    product = np.sqrt(softmax(original) * swap_classes(softmax(swapped), THREE_WAY))
    averaged = Passes(original, swapped).average(THREE_WAY, "log")
    assert np.abs(averaged - renormalise(product)).max() < 1e-12


def test_the_log_space_average_holds_where_a_probability_is_too_small_for_a_float():
    averaged = Passes(np.array([[0, 1_000, 0]], "f4"), np.array([[998, 0, 0]], "f4")).average(THREE_WAY, "log")
    assert averaged == pytest.approx(softmax([[0, 999, 0]]))
    averaged = Passes(np.array([[1_000, 0, 0]], "f4"), np.array([[998, 0, 0]], "f4")).average(THREE_WAY, "log")
    assert averaged == pytest.approx(softmax([[500, 499, 0]]))


@pytest.mark.parametrize("swap", ["all", "adaptive"])
def test_scorers_that_read_no_texts_cannot_be_asked_for_a_swapped_pass(battles_table, tmp_path, swap):
    Ensemble([FakeScorer()]).predict(battles_table).to_csv(tmp_path / "saved.csv", index=False)
    ensemble = Ensemble([FakeScorer(), SavedScorer(str(tmp_path / "saved.csv"))])
    with pytest.raises(ConfigError, match="saved would give the same probabilities for swapped responses"):
        ensemble.predict(parse_battles(battles_table), swap=swap)


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_a_warning_of_missing_scorers_names_the_line_that_asked_for_the_prediction(battles, method):
    ensemble = Ensemble([FakeScorer(), FaultyScorer(raise_at=1)])
    predict = getattr(ensemble, method)
    line = inspect.currentframe().f_lineno + 2
    with pytest.warns(MissingMemberWarning) as caught:
        predict(battles, on_failure="reweight")
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, line)]
