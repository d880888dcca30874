"""What a run takes over from earlier ones."""

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble import Ensemble, FakeScorer, parse_battles
from lmsys_ensemble.blending.blender import MissingMemberWarning
from lmsys_ensemble.errors import JournalError, ScoringError
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.modeling.rescue import score_rows
from lmsys_ensemble.progress import NOT_FINITE, OUT_OF_MEMORY
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.restoring import earlier_failure, may_have_passed, restore
from lmsys_ensemble.runtime.results import DONE, FAILED, MISSING
from lmsys_ensemble.schema import TWO_WAY
from lmsys_ensemble.scorers.base import NoProgress
from tests.runtime.making import make_job
from tests.runtime.neighbourly import Neighbourly, pair

pytestmark = pytest.mark.usefixtures("no_thread_is_left", "small_chunks")


def reason_of_a_row_that_does_not_fit():
    """Return what scoring says of a row that needs more memory than there is, from where that is decided."""

    class Forward:
        device, n_classes, limit, can_upcast = "cpu", 3, None, False

        def __call__(self, ids, fields, families=None, *, upcast=False):
            raise MemoryError

    one = np.zeros(7, np.int32)
    _, failed = score_rows(Forward(), [one], [one.astype(np.int8)], NoProgress())
    return failed[0]


def test_failed_second_passes_do_not_count_against_the_first_ones_of_a_resumed_run(table, tmp_path):
    swapped = set(parse_battles(table).swapped().content_hashes())

    class BadSwapped(Neighbourly):
        def score(self, battles):
            logits = super().score(battles)
            seconds = [row for row, name in enumerate(battles.content_hashes()) if name in swapped]
            for row in seconds[: 3 - len(bad)]:
                bad.append(battles.ids[row])
                logits[row] = np.nan
            return logits

    options = {"run_dir": tmp_path / "run", "swap": "adaptive", "max_failed_rows": 0.04}
    for is_first in (True, False):  # three of ninety passes are below 4 %, three of the sixty original ones above
        bad = [] if is_first else list("xyz")
        ensemble = Ensemble([BadSwapped(name="one"), Neighbourly(1, name="two")])
        with pytest.warns(MissingMemberWarning, match="3 of 60 rows lack something .* 3 without one .swapped."):
            predicted = ensemble.predict(table, **options)
        assert (predicted["fallback"] == "one (swapped)").sum() == 3
        assert [row["swapped"] for row in ensemble.summary_.scorers[0].failed_rows] == [True] * 3
        assert (ensemble.scorers[0].n_loads > 0) == is_first


@pytest.mark.parametrize("on_failure", ["stop", "reweight"])
def test_too_many_rows_that_an_earlier_run_failed_on_are_the_failure_of_their_scorer(table, tmp_path, on_failure):
    bad = {1003, 1050}
    with pytest.warns(MissingMemberWarning):
        Ensemble(pair(bad_rows=bad)).predict(table, run_dir=tmp_path / "run", max_failed_rows=0.05)
    ensemble, few = Ensemble(pair()), table[:10]
    if on_failure == "stop":
        with pytest.raises(ScoringError, match=r"'one' on an earlier run .* for 1 of 10 rows"):
            ensemble.predict(few, run_dir=tmp_path / "run")
        return
    with pytest.warns(MissingMemberWarning, match="1 of 10 rows lack something .* 1 without one"):
        predicted = ensemble.predict(few, run_dir=tmp_path / "run", on_failure="reweight")
    assert predicted.loc[predicted["fallback"] == "one", "id"].tolist() == [1003]
    assert "1 of 10 rows" in ensemble.summary_.scorers[0].error
    whole = Ensemble(pair()).predict(table)[:10]
    assert np.array_equal(predicted.loc[predicted["id"] != 1003, whole.columns], whole[whole["id"] != 1003])


@pytest.mark.parametrize("still", [False, True])
def test_rows_that_ran_out_of_memory_are_tried_again_and_no_others(table, tmp_path, still):
    bad, why = {1003, 1050}, reason_of_a_row_that_does_not_fit()
    options = {"run_dir": tmp_path / "run", "max_failed_rows": 0.05}
    with pytest.warns(MissingMemberWarning, match="2 of 60 rows lack"):
        Ensemble(pair(bad_rows=bad, why=why)).predict(table, **options)
    ensemble = Ensemble(pair(bad_rows=bad if still else (), why=why))
    if still:
        with pytest.warns(MissingMemberWarning, match="2 of 60 rows lack"):
            ensemble.predict(table, **options)
        assert {row["id"] for row in ensemble.summary_.scorers[0].failed_rows} == bad
    else:
        predicted = ensemble.predict(table, **options)
        assert "fallback" not in predicted
        assert predicted.iloc[:, 1:].to_numpy() == pytest.approx(Ensemble(pair()).predict_proba(table), abs=1e-2)
        again = Ensemble(pair())
        pd.testing.assert_frame_equal(predicted, again.predict(table, **options), check_exact=True)
        assert [scorer.n_loads for scorer in again.scorers] == [0, 0]
    rows = np.array(parse_battles(table).content_hashes())[table["id"].isin(bad)]
    assert sorted(ensemble.scorers[0].rows_seen) == sorted(rows)
    assert ensemble.scorers[1].rows_seen == []
    assert [scorer.resumed_rows for scorer in ensemble.summary_.scorers] == [58, 60]


def test_all_failed_rows_are_tried_again_where_that_is_asked_for(table, tmp_path):
    with pytest.warns(MissingMemberWarning):
        Ensemble(pair(bad_rows={1003, 1050})).predict(table, run_dir=tmp_path / "run", max_failed_rows=0.05)
    for options in ({}, {"rescore": True}):  # neither a resumed run nor other settings are a reason to try again
        ensemble = Ensemble(pair())
        with pytest.raises(ScoringError, match=r"2 of 60 rows .*retry_failed=True scores them again"):
            ensemble.predict(table, run_dir=tmp_path / "run", **options)
        assert ensemble.scorers[0].n_loads == 0
    ensemble = Ensemble(pair())
    predicted = ensemble.predict(table, run_dir=tmp_path / "run", retry_failed=True)
    assert "fallback" not in predicted
    assert len(ensemble.scorers[0].rows_seen) == 2


def test_logits_of_another_number_of_classes_are_refused_in_words(table, tmp_path):
    class Narrow(Neighbourly):
        task = TWO_WAY

        def score(self, battles):
            return FakeScorer(self.seed, n_classes=2).score(battles)

    Ensemble([Narrow()], task=TWO_WAY).predict(table, run_dir=tmp_path / "run")
    with pytest.raises(JournalError, match="holds logits of 2 classes of scorer 'one', expected 3"):
        Ensemble([Neighbourly()]).predict(table, run_dir=tmp_path / "run")


def test_only_lack_of_memory_may_have_passed():
    assert may_have_passed(reason_of_a_row_that_does_not_fit())
    assert not may_have_passed(NOT_FINITE)


@pytest.mark.parametrize("retry_failed", [False, True])
def test_a_job_takes_over_what_its_scorer_has_finished_and_failed_on(tmp_path, retry_failed):
    before, job, other = make_job("one"), make_job("one"), make_job("two")
    options = RunOptions(run_dir=tmp_path / "run", retry_failed=retry_failed, max_failed_rows=0.01)
    with Journal.open(tmp_path / "run", {"one": {}, "two": {}}) as journal:
        logits = np.arange(15, dtype=np.float32).reshape(5, 3)
        logits[3:] = np.nan
        reasons = {3: NOT_FINITE, 4: f"{OUT_OF_MEMORY}, even alone"}
        keys = before.items.keys_of(np.arange(5))
        journal.commit("one", keys, logits, reasons, device="cpu", n_tokens=0, seconds=0)
        for each in (job, other):
            restore(each, journal, options)
    assert job.results.status[:6].tolist() == [DONE] * 3 + [MISSING if retry_failed else FAILED, MISSING, MISSING]
    assert np.array_equal(job.results.logits[:3], logits[:3])
    assert job.tally.n_resumed == (3 if retry_failed else 4)
    assert (other.results.status == MISSING).all()
    failure = earlier_failure(job, options)
    assert (failure is None) == retry_failed
    assert earlier_failure(job, RunOptions(max_failed_rows=0.05)) is None
