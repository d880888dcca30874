"""The loaded scorers of a run."""

import time

import pytest

from lmsys_ensemble import Ensemble
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.hosting.display import Screen
from lmsys_ensemble.hosting.progress import ScorerProgress
from lmsys_ensemble.hosting.residence import let_go, residence_of
from lmsys_ensemble.hosting.scope import Failure, StopScope
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.runtime.instances import Instances
from lmsys_ensemble.runtime.items import make_items
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.results import Results
from tests.hosting.watched import Heavy, Single, Watched, count


@pytest.fixture
def single_job(log, battles_table):
    """A job of a scorer that cannot be shared, and that somebody wants kept."""
    scorer, holder = Single(log=log), Ensemble([])
    residence_of(scorer).holders.add(holder)
    scope = StopScope()
    progress = ScorerProgress("watched", "cpu", 0, Screen(["watched"], "off"), scope)
    results = Results(make_items(parse_battles(battles_table)), scorer.task.n_classes)
    yield Job(scorer, results, "cpu", frozenset({"cpu"}), 1.0, progress, scope)
    let_go([scorer], holder)


@pytest.mark.parametrize("kind", [Watched, Single])
def test_several_slots_share_what_may_be_shared_and_keep_replicas_of_the_rest(log, make_battles, kind):
    battles = make_battles(*[(f"question {i}" * 300, "yes", "no") for i in range(30)])
    scorer = kind(log=log, seconds_per_row=0.01)
    with Ensemble([scorer], devices=["cpu", "cpu"]) as ensemble:
        for _ in range(3):
            ensemble.predict(battles)
        n_loaded = count(log, "load")
        assert n_loaded == (1 if kind.shareable else 2)
        assert len(residence_of(scorer).residents) == n_loaded
    assert count(log, "close") == n_loaded


def test_what_is_kept_for_one_slot_is_not_offered_to_a_second(single_job):
    slots = [Slot(0, "cpu"), Slot(1, "cpu")]
    instances = Instances(slots, time.monotonic)
    instances.acquire(single_job, slots[0])
    instances.release(single_job, slots[0])  # one is loaded and idle
    assert all(instances.is_shared(single_job, slot) for slot in slots)
    single_job.slots.add(0)  # chosen for it, not yet acquired
    assert [instances.is_shared(single_job, slot) for slot in slots] == [True, False]
    instances.acquire(single_job, slots[0])
    assert [instances.is_shared(single_job, slot) for slot in slots] == [True, False]
    instances.release(single_job, slots[0])


def test_a_scorer_that_fails_in_one_slot_is_freed_where_another_slot_has_left_it(log, single_job):
    job, scorer = single_job, single_job.scorer
    slots = [Slot(0, "cpu"), Slot(1, "cpu")]
    instances = Instances(slots, time.monotonic)
    for slot in slots:
        instances.acquire(job, slot)
    instances.release(job, slots[1])
    assert len(residence_of(scorer).residents) == 1
    job.scope.fail(Failure(job.name, RuntimeError("worn out")))
    instances.release(job, slots[0])
    assert residence_of(scorer).residents == []
    assert (count(log, "load"), count(log, "close")) == (2, 2)


def test_a_scorer_that_needs_the_memory_of_one_that_is_only_kept_gets_it(log, battles_table, gpu, caplog):
    scorers = [Heavy(log=log, name="one", n_bytes=2**30), Heavy(log=log, name="two", n_bytes=2**30)]
    with Ensemble(scorers) as ensemble:
        scorers[1].n_bytes = 7 * 2**30 + 1  # it has to be loaded anew, and there is no room beside the first
        scorers[1].seed = 4
        residence_of(scorers[1]).free()
        gpu["cuda:0"] = 2**30
        ensemble.predict(battles_table)
        assert "two does not fit on cuda:0 beside what is kept there, which is freed" in caplog.text
    assert gpu["cuda:0"] == 0


def test_the_first_slot_gets_the_scorer_itself_and_the_second_a_replica_with_the_same_settings(single_job):
    slots = [Slot(0, "cpu"), Slot(1, "cpu")]
    instances = Instances(slots, time.monotonic)
    (first, seconds), (second, _) = (instances.acquire(single_job, slot) for slot in slots)
    assert first is single_job.scorer
    assert seconds >= 0
    assert second is not first
    assert second.settings() == first.settings()
    assert instances.acquire(single_job, slots[0]) == (first, None)  # it is loaded
    for slot in slots:
        instances.release(single_job, slot)
