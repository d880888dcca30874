"""What a run did, as values that JSON can hold."""

import json
import sys

import numpy as np
import pytest

from lmsys_ensemble import Ensemble, FakeScorer
from lmsys_ensemble.hosting.scope import Failure, StopScope
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.runtime.items import make_items
from lmsys_ensemble.runtime.summary import RunSummary, library_versions, peak_memory, phase_seconds, summarise_scorer
from tests.runtime.making import make_battles, make_job

pytestmark = pytest.mark.usefixtures("no_thread_is_left", "small_chunks")


def test_the_summary_is_json_and_tells_what_was_done(table):
    ensemble = Ensemble([FakeScorer(0, name="one"), FakeScorer(1, name="two")], devices=["cpu", "cpu"])
    ensemble.predict(table)
    summary = json.loads(json.dumps(ensemble.summary_.to_dict()))
    assert {"python", "lmsys-ensemble", "numpy", "pandas"} <= set(summary["versions"])
    assert summary["devices"] == ["cpu", "cpu"]
    assert (summary["rows"], summary["unique_rows"], summary["fallback_rows"], summary["swapped_rows"]) == (
        60,
        60,
        0,
        0,
    )
    assert {"load", "prepare", "score", "journal", "blend", "total"} == set(summary["seconds"])
    assert summary["peak_memory_bytes"]["rss"] > 2**20
    assert summary["options"]["on_failure"] == "stop"
    for name, scorer in zip(("one", "two"), summary["scorers"], strict=True):
        assert (scorer["name"], scorer["rows"], scorer["devices"], scorer["error"]) == (name, 60, ["cpu"], "")
        assert scorer["chunks"] > 1


def test_what_one_scorer_did_comes_from_its_job():
    scope = StopScope(keep_going=True)
    job = make_job("one", scope=scope, items=make_items(make_battles(10), both_passes=True))
    job.tally.add("prepare", 1.0)
    job.tally.add("score", 3.0)
    job.tally.count(8, 100)
    job.tally.devices.append("cuda:0")
    twice = np.arange(10) < 5
    swapped_passes = job.items.swapped_pass[
        [2, 7]
    ]  # of a row that has a second pass, and of one where it does not count
    job.results.store(swapped_passes, np.full((2, 3), np.nan), {0: "too long", 1: "too long"})
    job.results.store(job.items.original[[3]], np.full((1, 3), np.nan), {0: "too odd"})
    summary = summarise_scorer(job, "digest", twice)
    assert (summary.name, summary.fingerprint, summary.devices, summary.error) == ("one", "digest", ["cuda:0"], "")
    assert (summary.rows, summary.chunks, summary.tokens, summary.unscored_rows) == (8, 1, 100, 12)
    assert (summary.rows_per_second, summary.tokens_per_second) == (2.0, 25.0)
    assert summary.failed_rows == [
        {"id": 3, "swapped": False, "reason": "too odd"},
        {"id": 2, "swapped": True, "reason": "too long"},
    ]
    scope.fail(Failure("one", RuntimeError("boom")))
    assert summarise_scorer(job, "digest", twice).error == "RuntimeError: boom"
    assert phase_seconds([job, job]) == {"load": 0.0, "prepare": 2.0, "score": 6.0, "journal": 0.0}


def test_what_is_missing_is_explained_only_where_time_was_up():
    def summary(time_was_up, left_behind):
        return RunSummary(
            {}, [], 1, 1, 0, 0, time_was_up, left_behind, scorers=[], options={"time_budget_s": 90.0}
        )  # fmt: skip

    call = {"scorer": "one", "device": "cuda:0", "doing": "loading"}
    assert summary(False, [call]).explain_lack() == ""
    assert summary(True, []).explain_lack() == "the time budget of 90 s was too short for all"
    assert summary(True, [call, call]).explain_lack() == (
        "the time budget of 90 s was too short for all; scorer 'one' on cuda:0 was still loading and was left behind"
    )


def test_versions_of_what_was_not_used_are_left_out(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    versions = library_versions()
    assert {"python", "lmsys-ensemble", "numpy", "pandas"} <= set(versions)
    assert "torch" not in versions
    assert versions["numpy"] == np.__version__


def test_peaks_are_those_of_the_process_and_of_each_gpu_once(gpu):
    assert set(peak_memory([Slot(0, "cpu"), Slot(1, "cuda:0"), Slot(2, "cuda:0")])) == {"rss", "cuda:0"}
    assert set(peak_memory([Slot(0, "cpu")])) == {"rss"}
