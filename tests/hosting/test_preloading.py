"""Loading scorers ahead of runs."""

import pytest

from lmsys_ensemble import Ensemble, SavedScorer
from lmsys_ensemble.errors import DeviceError, ModelError, ScoringError
from lmsys_ensemble.hosting.preloading import load_and_hold
from lmsys_ensemble.hosting.residence import let_go, residence_of
from lmsys_ensemble.scorers.base import NoProgress
from tests.hosting.watched import Failing, Heavy, Watched, count, events


def out_of_memory_in_disguise(words):
    error = ModelError(words)
    error.__cause__ = RuntimeError("std::bad_alloc")
    return error


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (ModelError, ModelError, "told to"),
        (KeyError, ScoringError, "scorer 'bad' on cpu could not be loaded: KeyError"),
        (MemoryError, DeviceError, r"scorer 'bad' on cpu does not fit into memory .* without load\(\) and 'with'"),
        (out_of_memory_in_disguise, DeviceError, "scorer 'bad' on cpu does not fit into memory"),
    ],
)
def test_where_one_cannot_be_loaded_none_is_kept(log, battles_table, error, raised, words):
    scorers = [Watched(log=log, name="good"), Failing(log=log, name="bad", failing="load", error=error)]
    ensemble = Ensemble(scorers)
    with pytest.raises(raised, match=words):
        ensemble.load()
    assert count(log, "close") == count(log, "load") == 2
    scorers[1].failing = ""
    ensemble.predict(battles_table)
    assert count(log, "close") == count(log, "load") == 4


def test_scorers_that_do_not_fit_together_are_refused_by_load_and_still_run_one_after_the_other(
    log, battles_table, gpu
):
    ensemble = Ensemble([Heavy(log=log, name="one"), Heavy(log=log, name="two")])
    with pytest.raises(DeviceError, match="scorer 'two' on cuda:0 does not fit into memory beside the scorers"):
        ensemble.load()
    assert gpu["cuda:0"] == 0
    ensemble.predict(battles_table)
    assert gpu["cuda:0"] == 0


def test_what_is_loaded_is_idle_where_a_run_would_start_it_and_is_loaded_once(log):
    scorer, holders = Watched(log=log), [Ensemble([]), Ensemble([])]
    for holder in holders:
        load_and_hold([scorer], holder)
    (resident,) = residence_of(scorer).residents
    assert (resident.scorer, resident.device, resident.fingerprint) == (scorer, "cpu", scorer.fingerprint())
    assert isinstance(scorer.progress, NoProgress)
    for holder in holders:
        assert events(log) == ["load"]
        let_go([scorer], holder)
    assert events(log) == ["load", "close"]


def test_files_of_probabilities_are_not_kept(tmp_path):
    scorer, holder = SavedScorer(str(tmp_path / "saved.csv")), Ensemble([])
    load_and_hold([scorer], holder)
    assert residence_of(scorer).residents == []
    assert not residence_of(scorer).is_held
