"""Which scorer a slot gets; what of it shows in the scheduler's answers is tested there."""

from lmsys_ensemble.hosting.budget import Deadline
from lmsys_ensemble.runtime.placement import Placement, Steal
from tests.runtime.making import GPUS, make_job


def place(jobs, deadline=None, shared=()):
    return Placement(jobs, GPUS, deadline or Deadline(), lambda job, slot: job in shared)


def test_every_slot_has_a_scorer_reserved_until_it_takes_it():
    first, second = jobs = [make_job("a", home="cuda:1"), make_job("b", home="cuda:1")]
    placement = place(jobs)
    assert placement.is_pending
    assert placement.choose(GPUS[1], None) is first  # at home
    assert placement.choose(GPUS[0], None) is second  # the other cannot wait for its home
    assert not placement.is_pending


def test_a_slot_keeps_the_scorer_that_it_has_loaded():
    first, second = jobs = [make_job("a"), make_job("b")]
    placement = place(jobs, shared=jobs)
    assert [placement.choose(slot, None) for slot in GPUS] == [first, second]
    assert placement.choose(GPUS[0], held=second) is second
    assert placement.steals == []


def test_a_steal_says_whose_work_where_and_how_many_rows_wait():
    job, quick = jobs = [make_job("long"), make_job("quick", home="cuda:1")]
    placement = place(jobs, shared=[job])
    for slot in GPUS:
        placement.choose(slot, None)
    quick.queue.drop()
    assert placement.choose(GPUS[1], None) is job
    assert placement.steals == [Steal("long", 1, "cuda:1", job.queue.n_rows)]


def test_a_scorer_that_cannot_be_loaded_in_time_is_not_begun():
    job, other = jobs = [make_job("slow to load"), make_job("quick", home="cuda:1")]
    job.load_seconds, other.load_seconds = 20.0, 1.0
    placement = place(jobs, Deadline(10.0, lambda: 0.0))
    assert [placement.choose(slot, None) for slot in GPUS] == [None, other]


def test_time_is_short_where_all_work_of_the_devices_takes_longer_than_is_left():
    job, other = jobs = [make_job("a"), make_job("b", home="cuda:1")]
    placement = place(jobs, Deadline(10.0, lambda: 0.0))
    assert not placement.is_pressed(job)  # as far as is known
    job.speed.add(job.queue.cost_waiting, 12.0)
    assert not placement.is_pressed(job)  # 12 s on two slots
    other.speed.add(other.queue.cost_waiting, 9.0)
    assert placement.is_pressed(job)
