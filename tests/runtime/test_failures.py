"""How a run says what went wrong, and how to go on."""

import numpy as np
import pytest

from lmsys_ensemble import Ensemble
from lmsys_ensemble.blending.blender import MissingMemberWarning
from lmsys_ensemble.errors import EnsembleError, ModelError, ScoringError
from lmsys_ensemble.hosting.scope import Failure
from lmsys_ensemble.progress import NOT_FINITE
from lmsys_ensemble.runtime.failures import EARLIER, how_to_resume, raise_failure, too_many_failed
from tests.runtime.making import make_job
from tests.runtime.neighbourly import Neighbourly, pair

pytestmark = pytest.mark.usefixtures("no_thread_is_left", "small_chunks")


def test_the_error_names_scorer_device_rows_cause_and_cure(table):
    ensemble = Ensemble(pair(fail_after=0), devices=["cpu", "cpu"])
    with pytest.raises(ScoringError) as caught:
        ensemble.predict(table)
    message = str(caught.value)
    assert message.startswith("scorer 'one' on cpu failed: RuntimeError: CUDA error: boom, while it scored ")
    assert message.endswith("The other scorers were stopped. Pass run_dir= to keep finished work")
    assert all(repr(row_id) in message for row_id in caught.value.row_ids)
    assert 0 < len(caught.value.row_ids) <= 10
    assert set(caught.value.row_ids) <= set(table["id"])


def test_without_any_scorer_left_the_first_failure_is_raised(table):
    scorers = [Neighbourly(seed, name=str(seed), fail_after=0) for seed in range(2)]
    with pytest.raises(ScoringError, match=r"failed: RuntimeError: CUDA error: boom.*No scorer is left"):
        Ensemble(scorers).predict(table, on_failure="reweight")


def test_too_many_failed_rows_fail_the_run(table, tmp_path):
    scorers = pair(bad_rows={1003, 1050}, why="out of memory")
    with pytest.raises(
        ScoringError, match=r"'one' on cpu failed \(out of memory\) for [12] of 60 rows \(ids 10"
    ) as caught:
        Ensemble(scorers).predict(table)
    assert set(caught.value.row_ids) <= {1003, 1050}
    with pytest.warns(MissingMemberWarning):
        Ensemble(scorers).predict(table, run_dir=tmp_path / "run", max_failed_rows=0.05)
    with pytest.raises(ScoringError, match=r"'one' on cpu failed .* for [12] of 60 rows"):  # and does so again
        Ensemble(scorers).predict(table, run_dir=tmp_path / "run")


def test_an_error_of_the_library_is_raised_as_it_is_with_a_note_of_where_and_how_to_go_on():
    error = ModelError("no head")
    with pytest.raises(ModelError) as caught:
        raise_failure(Failure("one", error, "cuda:0", (7, 8)), "the others were stopped", "Rerun")
    assert caught.value is error
    assert error.__notes__ == [
        "scorer 'one' on cuda:0, while it scored 2 rows (ids 7, 8); the others were stopped. Rerun"
    ]


def test_an_error_whose_message_names_the_rows_gets_no_second_list():
    error = ScoringError("bad", row_ids=(7,))
    with pytest.raises(ScoringError):
        raise_failure(Failure("one", error, "cpu", (7, 8)), "the others were stopped", "")
    assert error.__notes__ == ["scorer 'one' on cpu; the others were stopped"]


@pytest.mark.parametrize("cure", ["", "Rerun"])
def test_a_failure_of_no_scorer_is_one_of_the_run(cure):
    own = ModelError("no head")
    with pytest.raises(ModelError) as caught:
        raise_failure(Failure(None, own), "", cure)
    assert getattr(caught.value, "__notes__", []) == ([cure] if cure else [])
    with pytest.raises(EnsembleError, match="the run failed: OSError: full") as caught:
        raise_failure(Failure(None, OSError("full")), "", cure)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("reasons", "device", "words"),
    [
        ([NOT_FINITE] * 2, "cpu", f"on cpu gave {NOT_FINITE} for 2 of 40 rows .*; try dtype='float32'"),
        (["too long", "too odd"], "cpu", r"on cpu failed \(too long; too odd\) for 2 of 40 rows"),
        (["too long"] * 2, EARLIER, "on an earlier run failed .*; retry_failed=True scores them again"),
    ],
)
def test_too_many_failed_rows_are_counted_and_named_with_why_and_a_cure(reasons, device, words):
    job = make_job("one", 40)
    error = too_many_failed(job, dict(zip((3, 4), reasons, strict=True)), device, 0.01)
    assert error.row_ids == tuple(job.items.ids(np.array([3, 4])))
    with pytest.raises(ScoringError, match=f"scorer 'one' {words}.*max_failed_rows allows 1.00% of the rows"):
        raise error
    assert str(too_many_failed(job, {3: "too long"}, "cpu", 0.0)).endswith("; no row may fail here")


def test_how_to_go_on_is_told_where_there_is_something_to_keep():
    job = make_job("one", 40)
    assert how_to_resume(None, [job]) == "Pass run_dir= to keep finished work"
    assert how_to_resume(None, [job], Failure("one", RuntimeError("no file"), "cpu")) == ""
    assert how_to_resume(None, [job], Failure("one", RuntimeError("boom"), "cpu", (7,))).startswith("Pass run_dir=")
    job.results.store(np.arange(5), np.zeros((5, 3), np.float32), {})
    assert how_to_resume("runs/1", [job, make_job("two", 40)]) == (
        "5 of 80 rows of all scorers are kept in runs/1: rerun with the same run_dir to resume"
    )
