"""Who does what next, without threads where that is enough: slots are asked in turn, and time is what a test says."""

import heapq
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ensemble import Ensemble, FakeScorer
from lmsys_ensemble.hosting.budget import Deadline
from lmsys_ensemble.hosting.scope import Failure, StopScope
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.runtime import items as items_module
from lmsys_ensemble.runtime.items import chunk_limit, cut
from lmsys_ensemble.runtime.placement import WORTH_LOADING
from lmsys_ensemble.runtime.scheduler import Scheduler
from tests.runtime.making import GPUS, make_battles, make_job

PATIENCE = 300


def make_scheduler(jobs, slots=GPUS, **options):
    return Scheduler(jobs, slots, 1_000, jobs[0].scope, **options)


def drain(scheduler, job, slot, seconds_per_cost=0.001):
    while (chunk := scheduler.next_chunk(job, slot)) is not None:
        scheduler.finished(job, chunk, job.items.cost(chunk) * seconds_per_cost)
    scheduler.leave(job, slot)


# --- scorers and slots ----------------------------------------------------------------------------------------------


def test_every_slot_starts_with_a_scorer_of_its_own_and_goes_on_with_those_that_nobody_has_begun():
    first, second, third = jobs = [make_job(name) for name in "abc"]
    scheduler = make_scheduler(jobs)
    assert scheduler.offer(GPUS[1]) is second  # whoever asks first
    assert scheduler.offer(GPUS[0]) is first
    drain(scheduler, second, GPUS[1])
    assert scheduler.offer(GPUS[1]) is third
    assert scheduler.steals == []


def test_pinned_scorers_stay_and_the_others_go_where_there_is_room():
    pinned = make_job("pinned", home="cuda:0", devices={"cuda:0"})
    also = make_job("also pinned", home="cuda:0", devices={"cuda:0"})
    free = make_job("free", home="cuda:1")
    scheduler = make_scheduler([pinned, also, free])
    assert [scheduler.offer(slot) for slot in GPUS] == [pinned, free]
    drain(scheduler, free, GPUS[1])
    assert scheduler.offer(GPUS[1]) is None  # the other is pinned elsewhere
    drain(scheduler, pinned, GPUS[0])
    assert scheduler.offer(GPUS[0]) is also


def test_a_scorer_that_is_not_pinned_does_not_wait_for_its_first_device():
    long, waiting = make_job("long"), make_job("waiting")
    scheduler = make_scheduler([long, waiting])
    assert [scheduler.offer(slot) for slot in GPUS] == [long, waiting]


@pytest.mark.parametrize(("share", "steals"), [(1.01, True), (0.99, False)])
def test_a_slot_steals_work_where_what_remains_is_worth_the_load(share, steals):
    slow, quick = make_job("slow"), make_job("quick", home="cuda:1")
    scheduler = make_scheduler([slow, quick])
    assert [scheduler.offer(slot) for slot in GPUS] == [slow, quick]
    drain(scheduler, quick, GPUS[1])
    assert scheduler.offer(GPUS[1]) is None  # nobody knows yet how long loading takes, or a chunk
    scheduler.loaded(slow, 1.0)
    assert scheduler.offer(GPUS[1]) is None
    chunk = scheduler.next_chunk(slow, GPUS[0])
    per_cost = share * WORTH_LOADING / slow.queue.cost_waiting
    scheduler.finished(slow, chunk, slow.items.cost(chunk) * per_cost)
    assert scheduler.offer(GPUS[1]) is (slow if steals else None)
    assert [(steal.scorer, steal.slot) for steal in scheduler.steals] == [("slow", 1)] * steals


def test_work_of_what_is_loaded_and_can_be_shared_is_stolen_at_once():
    slow, quick = make_job("slow"), make_job("quick", home="cuda:1")
    scheduler = make_scheduler([slow, quick], shared=lambda job, slot: job is slow)
    assert [scheduler.offer(slot) for slot in GPUS] == [slow, quick]
    drain(scheduler, quick, GPUS[1])
    assert scheduler.offer(GPUS[1]) is slow


def test_a_slot_steals_where_most_is_left_per_slot():
    slots = [*GPUS, Slot(2, "cuda:0")]
    jobs = [make_job("long", 60), make_job("short", 30, home="cuda:1"), make_job("none", 1)]
    scheduler = make_scheduler(jobs, slots, shared=lambda job, slot: True)
    assert [scheduler.offer(slot) for slot in slots] == jobs
    for job, slot in zip(jobs[:2], slots, strict=False):
        chunk = scheduler.next_chunk(job, slot)
        scheduler.finished(job, chunk, job.items.cost(chunk) * 0.01)
    drain(scheduler, jobs[2], slots[2])
    assert scheduler.offer(slots[2]) is jobs[0]


def test_a_slot_that_has_nothing_to_do_waits_until_all_is_done():
    job = make_job("only", devices={"cuda:0"})
    scheduler = make_scheduler([job])
    assert scheduler.next_job(GPUS[0]) is job
    answers = []
    thread = threading.Thread(target=lambda: answers.append(scheduler.next_job(GPUS[1])))
    thread.start()
    drain(scheduler, job, GPUS[0])
    thread.join(PATIENCE)
    assert answers == [None]
    assert scheduler.next_job(GPUS[0]) is None


def test_more_work_is_planned_once_when_all_is_done_and_goes_to_who_still_holds_the_scorer():
    first, second = jobs = [make_job("a"), make_job("b")]
    planned = []

    def plan():
        planned.append(1)
        for job in jobs:
            job.enqueue(cut(job.items, np.arange(len(job.items)), 1_000))
        return []

    scheduler = make_scheduler(jobs, more=plan)
    for job, slot in zip(jobs, GPUS, strict=True):
        assert scheduler.next_job(slot) is job
    for job, slot in zip(jobs, GPUS, strict=True):
        assert not scheduler.is_finished(job)
        drain(scheduler, job, slot)
    assert scheduler.next_job(GPUS[1], held=second) is second
    assert scheduler.next_job(GPUS[0], held=first) is first
    assert planned == [1]


# --- chunks ---------------------------------------------------------------------------------------------------------


def test_chunks_are_handed_out_once_longest_first():
    job = make_job("a")
    expected = [chunk.tolist() for chunk in job.queue.chunks]
    scheduler = make_scheduler([job], shared=lambda job, slot: True)
    scheduler.offer(GPUS[0])
    scheduler.offer(GPUS[1])
    handed = []
    while (chunk := scheduler.next_chunk(job, GPUS[len(handed) % 2])) is not None:
        handed.append(chunk.tolist())
        scheduler.finished(job, chunk, 1.0)
    assert handed == expected
    assert (job.queue.cost_waiting, job.cost_begun) == (0, 0)


def test_the_last_chunks_are_not_prepared_ahead():
    job = make_job("a")
    scheduler = make_scheduler([job], shared=lambda job, slot: True)
    for slot in GPUS:
        scheduler.offer(slot)
    n_ahead = 0
    while (chunk := scheduler.next_chunk(job, GPUS[0], ahead=True)) is not None:
        scheduler.finished(job, chunk, 1.0)
        n_ahead += 1
    assert n_ahead > 0
    assert len(job.queue) == len(GPUS)
    assert scheduler.next_chunk(job, GPUS[1]) is not None


def test_a_failure_ends_all_or_only_its_scorer():
    for keep_going in (False, True):
        scope = StopScope(keep_going=keep_going)
        broken, whole = jobs = [make_job("broken", scope=scope), make_job("whole", scope=scope)]
        scheduler = make_scheduler(jobs)
        for slot in GPUS:
            scheduler.offer(slot)
        scheduler.fail(Failure("broken", RuntimeError("boom")))
        assert len(broken.queue) == broken.queue.cost_waiting == 0
        assert scheduler.next_chunk(broken, GPUS[0]) is None
        assert (scheduler.next_chunk(whole, GPUS[1]) is not None) == keep_going
        assert [failure.scorer for failure in scope.failures] == ["broken"]


def test_a_slot_leaves_a_scorer_of_lower_weight_where_one_of_greater_weight_would_not_be_done_in_time():
    now = [0.0]
    scope = StopScope(Deadline(100.0, lambda: now[0]))
    heavy, light = make_job("heavy", weight=2.0, scope=scope), make_job("light", weight=1.0, scope=scope)
    scheduler = make_scheduler([light, heavy], shared=lambda job, slot: True)
    assert [scheduler.offer(slot) for slot in GPUS] == [heavy, light]
    for job, slot in ((heavy, GPUS[0]), (light, GPUS[1])):
        chunk = scheduler.next_chunk(job, slot)
        per_cost = 150 / job.queue.cost_waiting  # 150 s on one slot
        scheduler.finished(job, chunk, job.items.cost(chunk) * per_cost)
    assert scheduler.next_chunk(light, GPUS[1]) is None
    scheduler.leave(light, GPUS[1])
    assert scheduler.offer(GPUS[1]) is heavy


def test_other_slots_are_answered_while_margins_are_worked_out():
    now = [0.0]
    scope = StopScope(Deadline(100.0, lambda: now[0]))
    job, other = make_job("a", scope=scope), make_job("b", home="cuda:1", scope=scope)
    answers = []

    def margin(asked):
        thread = threading.Thread(target=lambda: answers.append(scheduler.offer(GPUS[1])))
        thread.start()
        thread.join(PATIENCE)
        answers.append(asked)
        return np.arange(len(asked.items), dtype=float)[::-1]

    scheduler = make_scheduler([job, other], margin=margin)
    assert scheduler.offer(GPUS[0]) is job
    scheduler.finished(job, scheduler.next_chunk(job, GPUS[0]), 0.1)
    assert answers == []  # the speed was not known
    job.speed.add(job.queue.cost_waiting, 1_000)  # far more than there is time for
    waiting = np.concatenate(job.queue.chunks)
    chunk = scheduler.next_chunk(job, GPUS[0])
    assert answers == [other, job]
    assert chunk[0] == waiting.max()  # the smallest margin
    assert scheduler.next_chunk(job, GPUS[0], ahead=True) is None
    assert answers == [other, job]


def test_failures_that_are_found_when_more_is_planned_end_their_scorers_first():
    scope = StopScope(keep_going=True)
    broken, whole = jobs = [make_job(name, scope=scope) for name in ("broken", "whole")]

    def plan():
        for job in jobs:
            job.enqueue(cut(job.items, np.arange(len(job.items)), 1_000))
        return [Failure("broken", RuntimeError("boom"))]

    scheduler = make_scheduler(jobs, more=plan)
    for job, slot in zip(jobs, GPUS, strict=True):
        assert scheduler.next_job(slot) is job
        drain(scheduler, job, slot)
    assert scheduler.next_job(GPUS[0], held=broken) is whole


# --- makespan -------------------------------------------------------------------------------------------------------


def simulate(jobs, seconds_per_cost, load_seconds, slots):
    """Run a scheduler on a clock of events; return the makespan and the seconds of work done, loading included."""
    scheduler = make_scheduler(jobs, slots)
    events, free, now, work, makespan = [], list(slots), 0.0, 0.0, 0.0
    while True:
        for slot in list(free):
            job = scheduler.offer(slot)
            if job is not None:
                free.remove(slot)
                work += load_seconds
                heapq.heappush(events, (now + load_seconds, slot.number, job, None, load_seconds))
        if not events:
            return makespan, work
        now, number, job, chunk, seconds = heapq.heappop(events)
        if chunk is None:
            scheduler.loaded(job, seconds)
        else:
            scheduler.finished(job, chunk, seconds)
            makespan = now
        chunk = scheduler.next_chunk(job, slots[number])
        if chunk is None:
            scheduler.leave(job, slots[number])
            free.append(slots[number])
        else:
            seconds = job.items.cost(chunk) * seconds_per_cost[job.name]
            work += seconds
            heapq.heappush(events, (now + seconds, number, job, chunk, seconds))


@settings(max_examples=30)
@given(st.floats(1, 20), st.floats(0, 0.02))
def test_two_unequal_scorers_on_two_devices_take_half_of_all_work(ratio, load_share):
    jobs = [make_job("slow", 1_500, limit=1), make_job("fast", 1_500, home="cuda:1", limit=1)]
    total = int(jobs[0].items.costs.sum())
    for job in jobs:
        job.queue.drop()
        job.enqueue(cut(job.items, np.arange(len(job.items)), chunk_limit(total, 2)))
    seconds = {"slow": ratio / total, "fast": 1 / total}
    load_seconds = load_share * (1 + ratio)
    makespan, work = simulate(jobs, seconds, load_seconds, GPUS)
    assert all(not len(job.queue) and not job.cost_begun for job in jobs)
    assert work >= (1 + ratio) * (1 - 1e-9)
    assert makespan <= 1.05 * work / 2 + load_seconds


# --- with threads ---------------------------------------------------------------------------------------------------


def test_four_threads_share_a_scorer_and_every_row_comes_out_where_it_went_in(monkeypatch):
    monkeypatch.setattr(items_module, "MIN_CHUNK", 200)
    together = threading.Barrier(4)
    first = set()

    class Meeting(FakeScorer):
        def score(self, battles):
            name = threading.current_thread().name
            if name not in first:
                first.add(name)
                together.wait(PATIENCE)  # all four have a chunk of it at the same time
            return super().score(battles)

    battles = make_battles(400)
    ensemble = Ensemble([Meeting(3)], devices=["cpu"] * 4)
    predicted = ensemble.predict(battles)
    assert np.array_equal(predicted.iloc[:, 1:], Ensemble([FakeScorer(3)]).predict_proba(battles))
    assert len(first) == 4
    assert {steal["slot"] for steal in ensemble.summary_.helping} <= {0, 1, 2, 3}
    assert len(ensemble.summary_.helping) >= 3


def test_a_scorer_that_cannot_be_shared_has_a_replica_on_every_other_slot(monkeypatch):
    monkeypatch.setattr(items_module, "MIN_CHUNK", 200)
    together = threading.Barrier(2)

    class Lonely(FakeScorer):
        shareable = False
        events = []  # noqa: RUF012 - of the class, as replicas share nothing else

        def load(self, device=None):
            self.users = set()
            self.n_chunks = 0
            self.events.append(("load", id(self)))

        def score(self, battles):
            self.users.add(threading.get_ident())
            self.n_chunks += 1
            if self.n_chunks == 2:
                together.wait(PATIENCE)  # the second slot comes because the first has been measured
            return super().score(battles)

        def close(self):
            assert len(self.users) == 1
            self.events.append(("close", id(self)))

    scorer = Lonely(5, seconds_per_row=0.002)
    battles = make_battles(200)
    predicted = Ensemble([scorer], devices=["cpu"] * 2).predict_proba(battles)
    assert np.array_equal(predicted, Ensemble([FakeScorer(5)]).predict_proba(battles))
    assert sorted(kind for kind, _ in Lonely.events) == ["close", "close", "load", "load"]
    assert len({name for _, name in Lonely.events}) == 2
    assert ("load", id(scorer)) in Lonely.events
