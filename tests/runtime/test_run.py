"""Runs as a whole: what is kept, what is resumed, what fails and what is said of it."""

import json
import os
import sys

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble import Blender, Ensemble, FakeScorer, SavedScorer
from lmsys_ensemble.blending.blender import MissingMemberWarning
from lmsys_ensemble.errors import ConfigError, EnsembleError, JournalError, ScoringError
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.journal.status import read_run
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.runtime import items
from lmsys_ensemble.testing.faults import FaultyScorer
from tests.runtime.neighbourly import Neighbourly, pair

pytestmark = pytest.mark.usefixtures("no_thread_is_left", "small_chunks")


# --- the journal ----------------------------------------------------------------------------------------------------


def test_a_rerun_loads_nothing_and_gives_the_same(table, tmp_path):
    first = Ensemble(pair()).predict(table, run_dir=tmp_path / "run")
    scorers = pair()
    ensemble = Ensemble(scorers)
    again = ensemble.predict(table, run_dir=tmp_path / "run")
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert [scorer.n_loads for scorer in scorers] == [0, 0]
    assert [scorer.resumed_rows for scorer in ensemble.summary_.scorers] == [60, 60]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == ensemble.summary_.to_dict()


@pytest.mark.parametrize("swap", ["off", "all", "adaptive"])
@pytest.mark.parametrize("fail_after", [0, 1, 7])
def test_a_run_that_failed_is_resumed_to_the_last_bit_and_scores_nothing_twice(table, tmp_path, fail_after, swap):
    whole = Ensemble(pair()).predict(table, swap=swap)
    broken = pair(fail_after=fail_after)
    with pytest.raises(ScoringError, match=r"'one' on cpu failed: .* rerun with the same run_dir to resume"):
        Ensemble(broken).predict(table, run_dir=tmp_path / "run", swap=swap)
    scorers = pair()
    resumed = Ensemble(scorers).predict(table, run_dir=tmp_path / "run", swap=swap)
    pd.testing.assert_frame_equal(whole, resumed, check_exact=True)
    for before, after in zip(broken, scorers, strict=True):
        assert not set(before.rows_seen) & set(after.rows_seen)
    assert len(broken[0].seen) <= fail_after


@pytest.mark.parametrize("n_more", [1, 3, 8])
def test_a_run_that_failed_in_its_second_passes_is_resumed_to_the_last_bit(table, tmp_path, n_more):
    scorers = pair()
    Ensemble(scorers).predict(table)
    broken = pair(fail_after=len(scorers[0].seen) + n_more)
    with pytest.raises(ScoringError, match="'one' on cpu failed"):
        Ensemble(broken).predict(table, run_dir=tmp_path / "run", swap="adaptive")
    ensemble, uninterrupted = Ensemble(pair()), Ensemble(pair())
    resumed = ensemble.predict(table, run_dir=tmp_path / "run", swap="adaptive")
    pd.testing.assert_frame_equal(uninterrupted.predict(table, swap="adaptive"), resumed, check_exact=True)
    assert ensemble.summary_.swapped_rows == uninterrupted.summary_.swapped_rows == 30
    for before, after in zip(broken, ensemble.scorers, strict=True):
        assert not set(before.rows_seen) & set(after.rows_seen)


def test_reordered_and_extended_input_reuses_what_it_can(table, tmp_path):
    Ensemble(pair()).predict(table[:40], run_dir=tmp_path / "run")
    scorers = pair()
    shuffled = table.sample(frac=1, random_state=0).assign(id=range(60))
    predicted = Ensemble(scorers).predict(shuffled, run_dir=tmp_path / "run")
    assert predicted["id"].tolist() == list(range(60))
    for seed, scorer in enumerate(scorers):
        assert len(scorer.rows_seen) == 20
        expected = softmax(FakeScorer(seed).score(items.make_items(_battles(shuffled)).battles))
        member = Ensemble([Neighbourly(seed, name=scorer.name)]).member_probabilities(
            shuffled, run_dir=tmp_path / "run"
        )
        assert member[scorer.name] == pytest.approx(expected, abs=0.01)


def _battles(table):
    from lmsys_ensemble import parse_battles

    return parse_battles(table)


def test_rows_with_the_same_texts_are_scored_once_and_keep_their_ids(table):
    twice = pd.concat([table, table.assign(id=table["id"] + 5000)])
    scorer = Neighbourly()
    ensemble = Ensemble([scorer])
    predicted = ensemble.predict(twice)
    assert predicted["id"].tolist() == twice["id"].tolist()
    assert np.array_equal(predicted.iloc[:60, 1:], predicted.iloc[60:, 1:])
    assert len(scorer.rows_seen) == 60
    assert (ensemble.summary_.rows, ensemble.summary_.unique_rows) == (120, 60)


def test_other_settings_are_refused_before_anything_is_loaded_or_scored_anew_when_asked(table, tmp_path):
    Ensemble(pair()).predict(table, run_dir=tmp_path / "run")
    changed = [Neighbourly(7, name="one"), Neighbourly(1, name="two")]
    with pytest.raises(JournalError, match="scorer 'one': seed was 0, is 7"):
        Ensemble(changed).predict(table, run_dir=tmp_path / "run")
    assert changed[0].n_loads == 0
    predicted = Ensemble(changed).predict(table, run_dir=tmp_path / "run", rescore=True)
    pd.testing.assert_frame_equal(predicted, Ensemble(changed).predict(table), check_exact=True)
    assert len(changed[0].seen) > 0


def test_probabilities_from_a_file_are_read_again_by_id_and_not_journalled(table, tmp_path):
    saved = tmp_path / "saved.csv"
    Ensemble([FakeScorer(3)]).predict(table).to_csv(saved, index=False)
    ensemble = Ensemble([SavedScorer(str(saved)), Neighbourly()])
    same = table.assign(prompt="the same", response_a="for", response_b="all")
    for _ in range(2):
        members = ensemble.member_probabilities(same, run_dir=tmp_path / "run")
        assert members["saved"] == pytest.approx(Ensemble([FakeScorer(3)]).predict_proba(table), abs=1e-6)
    assert [scorer.resumed_rows for scorer in ensemble.summary_.scorers] == [0, 1]
    with Journal.open(tmp_path / "run", {"saved": {}, "one": {"seed": 0}}, rescore=True) as journal:
        assert len(journal.finished("saved")) == 0
        assert len(journal.finished("one")) == 1


@pytest.mark.parametrize("on_failure", ["stop", "reweight"])
def test_a_journal_that_cannot_be_written_ends_the_run_whatever_is_asked(table, tmp_path, monkeypatch, on_failure):
    commit, n_commits = Journal.commit, []

    def full(self, *arguments, **options):
        n_commits.append(1)
        if len(n_commits) > 3:
            raise JournalError("the disk is full")
        commit(self, *arguments, **options)

    monkeypatch.setattr(Journal, "commit", full)
    with pytest.raises(JournalError, match="the disk is full"):
        Ensemble(pair()).predict(table, run_dir=tmp_path / "run", on_failure=on_failure)
    monkeypatch.setattr(Journal, "commit", commit)
    ensemble = Ensemble(pair())
    ensemble.predict(table, run_dir=tmp_path / "run")
    assert sum(scorer.resumed_rows for scorer in ensemble.summary_.scorers) > 0


def test_a_second_run_in_one_directory_is_refused_at_once(table, tmp_path):
    class Curious(Neighbourly):
        def load(self, device=None):
            with pytest.raises(JournalError) as caught:
                Ensemble([FakeScorer()]).predict(table, run_dir=tmp_path / "run")
            refusals.append(str(caught.value))

    refusals = []
    Ensemble([Curious()]).predict(table, run_dir=tmp_path / "run")
    assert len(refusals) == 1


# --- failures -------------------------------------------------------------------------------------------------------


def test_the_others_go_on_without_a_scorer_that_failed_where_that_is_wanted(table):
    ensemble = Ensemble([*pair(fail_after=0), Neighbourly(2, name="three")], Blender(weights=[2, 1, 1]))
    with pytest.warns(MissingMemberWarning, match="60 of 60 rows lack something .* 60 without one"):
        predicted = ensemble.predict(table, on_failure="reweight")
    rest = Ensemble([Neighbourly(1, name="two"), Neighbourly(2, name="three")]).predict(table)
    assert predicted["fallback"].tolist() == ["one"] * 60
    assert predicted.iloc[:, 1:4].to_numpy() == pytest.approx(rest.iloc[:, 1:].to_numpy(), abs=1e-12)
    summary = ensemble.summary_
    assert summary.fallback_rows == 60
    assert [scorer.error for scorer in summary.scorers] == ["RuntimeError: CUDA error: boom", "", ""]
    assert [scorer.unscored_rows for scorer in summary.scorers] == [60, 0, 0]


def test_what_a_scorer_had_finished_before_it_failed_counts(table):
    ensemble = Ensemble(pair(fail_after=2), devices=["cpu", "cpu"])
    with pytest.warns(MissingMemberWarning):
        predicted = ensemble.predict(table, on_failure="reweight")
    finished = predicted["fallback"] == ""
    assert 0 < finished.sum() < 60
    whole = Ensemble(pair(), devices=["cpu", "cpu"]).predict(table)
    assert np.array_equal(predicted.loc[finished, whole.columns], whole[finished])


@pytest.mark.parametrize("why", [None, "the text is too long for it"])
def test_rows_that_fail_are_quarantined_and_listed(table, tmp_path, why):
    bad = {1003, 1050}
    for resumed in (False, True):
        ensemble = Ensemble(pair(bad_rows=bad, why=why))
        with pytest.warns(MissingMemberWarning, match="2 of 60 rows lack something .* 2 without one"):
            predicted = ensemble.predict(table, max_failed_rows=0.05, run_dir=tmp_path / "run")
        failed = predicted["id"].isin(bad)
        assert predicted["fallback"].tolist() == ["one" if row else "" for row in failed]
        assert np.isfinite(predicted.iloc[:, 1:4]).all(axis=None)
        alone = Ensemble([Neighbourly(1, name="two")]).predict(table)
        assert np.array_equal(predicted.loc[failed, alone.columns], alone[failed])
        listed = [{"id": row_id, "swapped": False, "reason": why or "NaN or infinite logits"} for row_id in sorted(bad)]
        assert ensemble.summary_.scorers[0].failed_rows == listed
        assert ensemble.summary_.scorers[0].resumed_rows == (60 if resumed else 0)


def test_a_summary_that_cannot_be_written_costs_no_prediction(table, tmp_path, caplog):
    (tmp_path / "run" / "summary.json").mkdir(parents=True)
    ensemble = Ensemble(pair())
    predicted = ensemble.predict(table, run_dir=tmp_path / "run")
    pd.testing.assert_frame_equal(predicted, Ensemble(pair()).predict(table), check_exact=True)
    assert ensemble.summary_.rows == 60
    assert "the prediction is whole, but its summary could not be kept: the run directory" in caplog.text


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="paths are Unicode there")
def test_a_run_directory_and_ids_that_are_no_unicode_are_kept_as_they_are(table, tmp_path):
    folder = tmp_path / os.fsdecode(b"n\xe4chtlich")
    odd = table.assign(id=pd.Series([f"row \udce4 {row}" for row in table["id"]], dtype=object))
    bad = {odd["id"][3]}
    ensemble = Ensemble(pair(bad_rows=bad, why="n\udce4h"))
    with pytest.warns(MissingMemberWarning):
        predicted = ensemble.predict(odd, run_dir=folder, max_failed_rows=0.05)
    assert predicted["id"].tolist() == odd["id"].tolist()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == ensemble.summary_.to_dict()
    assert summary["options"]["run_dir"] == str(folder)
    assert summary["scorers"][0]["failed_rows"] == [{"id": odd["id"][3], "swapped": False, "reason": "n\udce4h"}]
    assert read_run(folder).errors[0].reason == "n\udce4h"
    again = Ensemble(pair())
    with pytest.warns(MissingMemberWarning):
        again.predict(odd, run_dir=folder, max_failed_rows=0.05)
    assert again.scorers[0].n_loads == 0


def test_a_scorers_name_that_is_no_unicode_is_refused_before_anything_is_loaded(table, tmp_path):
    scorers = [Neighbourly(name="n\udce4h")]
    with pytest.raises(ConfigError, match=r"cannot be shown or stored.*'n\\udce4h'"):
        Ensemble(scorers).predict(table, run_dir=tmp_path / "run")
    assert scorers[0].n_loads == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("raise_at", [10, 70])
def test_a_run_that_went_on_without_a_scorer_is_made_whole_by_a_resume(table, tmp_path, raise_at):
    def scorers(raise_at=None):
        return [FaultyScorer(0, raise_at=raise_at, name="one"), FakeScorer(1, name="two")]

    options = {"run_dir": tmp_path / "run", "swap": "adaptive"}
    with pytest.warns(MissingMemberWarning):
        Ensemble(scorers(raise_at), devices=["cpu"] * 2).predict(table, on_failure="reweight", **options)
    ensemble, whole = Ensemble(scorers()), Ensemble(scorers())
    pd.testing.assert_frame_equal(
        ensemble.predict(table, **options), whole.predict(table, swap="adaptive"), check_exact=True
    )
    assert ensemble.summary_.swapped_rows == whole.summary_.swapped_rows == 30


def test_a_row_that_every_scorer_failed_on_gets_the_mean_of_the_others(table):
    scorers = [Neighbourly(seed, name=str(seed), bad_rows={1007}) for seed in range(2)]
    with pytest.warns(MissingMemberWarning, match="1 without 0, 1"):
        predicted = Ensemble(scorers).predict(table, max_failed_rows=0.05)
    row = predicted["id"] == 1007
    assert predicted.loc[row, "fallback"].item() == "0, 1"
    assert predicted[row].iloc[0, 1:4].to_numpy(float) == pytest.approx(predicted[~row].iloc[:, 1:4].mean().to_numpy())


def test_a_blender_that_has_to_learn_first_is_refused_before_anything_is_loaded(table):
    scorers = pair()
    with pytest.raises(ConfigError, match="has to learn first"):
        Ensemble(scorers, Blender(method="linear")).predict(table)
    assert [scorer.n_loads for scorer in scorers] == [0, 0]


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"run_dri": "x"}, "no option 'run_dri' .did you mean 'run_dir'"),
        ({"on_failure": "ignore"}, "on_failure must be one of 'stop', 'reweight', got 'ignore'"),
        ({"swap": True}, "swap must be one of 'off', 'all', 'adaptive'"),
        ({"swap_space": "logit"}, "swap_space must be"),
        ({"max_failed_rows": 1.5}, "max_failed_rows is a share"),
        ({"swap_share": float("nan")}, "swap_share is a share"),
        ({"time_budget_s": 0}, "time_budget_s must be a positive"),
        ({"time_budget_s": "1h"}, "time_budget_s must be a positive"),
        ({"rescore": True}, "rescore=True concerns what a run directory holds; pass run_dir=, too"),
        ({"retry_failed": True}, "retry_failed=True concerns what a run directory holds; pass run_dir=, too"),
    ],
)
def test_wrong_options_are_refused_with_the_right_ones(table, options, words):
    with pytest.raises(ConfigError, match=words):
        Ensemble([FakeScorer()]).predict(table, **options)


def test_internal_errors_are_not_hidden(table, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("planning")

    monkeypatch.setattr("lmsys_ensemble.runtime.selection.closest_to_call", broken)
    with pytest.raises(EnsembleError, match="the run failed: ZeroDivisionError: planning"):
        Ensemble([FakeScorer()]).predict(table, swap="adaptive")
