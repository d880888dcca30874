"""Who does what next.

Every slot starts with a scorer of its own, as long as there are any; a slot that is done takes the next scorer that
nobody has begun, and where there is none it helps: it loads a scorer that others are still busy with, if what remains
of it is worth the loading. Chunks are handed out one at a time, so that all slots end at nearly the same time.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.runtime.budget import Deadline
from lmsys_ensemble.runtime.failures import Failure
from lmsys_ensemble.runtime.handout import reorder, take_probe, take_what_fits
from lmsys_ensemble.runtime.items import Positions
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.progress import StopScoring
from lmsys_ensemble.runtime.slots import Slot

logger = logging.getLogger(__name__)

WORTH_LOADING = 1.2
"""A slot helps where what remains for each helper takes this many times as long as loading."""

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Helping:
    """A slot came to help with a scorer that another had begun."""

    scorer: str
    slot: int
    device: str
    rows_waiting: int


class Scheduler:
    """Hands out scorers and chunks to the slots' threads; all its methods may be called from any thread.

    Parameters
    ----------
    jobs : sequence of Job
        With filled queues.
    slots : sequence of Slot
        Each has one thread.
    limit : int
        Cost of a chunk.
    deadline : Deadline
        When scoring must end.
    keep_going : bool
        Whether the others go on when a scorer fails.
    shared : callable
        Tells whether a job's scorer is loaded on a slot's device and may be used there at once.
    sureness : callable, optional
        Returns how sure each item is by what is known (NaN: nothing is), for a job; used when time is short.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        slots: Sequence[Slot],
        limit: int,
        deadline: Deadline,
        *,
        keep_going: bool = False,
        shared: Callable[[Job, Slot], bool] = lambda job, slot: False,
        sureness: Callable[[Job], NDArray[np.float64]] | None = None,
    ):
        self.jobs = list(jobs)
        self.slots = list(slots)
        self.limit = limit
        self.deadline = deadline
        self.keep_going = keep_going
        self.shared = shared
        self.sureness = sureness
        self.stop = threading.Event()
        self.failures: list[Failure] = []
        self.helpings: list[Helping] = []
        self.more: Callable[[], None] | None = None
        self._planning = False
        self._changed = threading.Condition()
        self._reserved: dict[int, Job] = {}
        self._reserve()

    @property
    def is_over(self) -> bool:
        """Whether nothing new is to be begun."""
        return self.stop.is_set() or self.deadline.is_over

    def is_over_for(self, job: Job) -> bool:
        """Whether a scorer is to stop at the next batch."""
        return self.is_over or job.failure is not None

    # --- scorers ----------------------------------------------------------------------------------------------------

    def next_job(self, slot: Slot, held: Job | None = None) -> Job | None:
        """Wait until there is a scorer for a slot and return it, or None at the end.

        Parameters
        ----------
        slot : Slot
            Who asks.
        held : Job, optional
            Whose scorer the slot has still loaded.
        """
        while True:
            with self._changed:
                if self.is_over:
                    return None
                if not self._planning:
                    job = self.offer(slot, held)
                    if job is not None:
                        return job
                    if self._idle():
                        if self.more is None:
                            return None
                        self._planning = True
                        break
                self._changed.wait(_POLL_SECONDS)
        self._plan_more()
        return self.next_job(slot, held)

    def offer(self, slot: Slot, held: Job | None = None) -> Job | None:
        """Return the scorer for which a slot had best work now, or None where it had best wait."""
        with self._changed:
            job = self._choose(slot, held)
            if job is not None:
                job.slots.add(slot.number)
            return job

    def leave(self, job: Job, slot: Slot) -> None:
        """Say that a slot no longer works for a scorer."""
        with self._changed:
            job.slots.discard(slot.number)
            self._changed.notify_all()

    def loaded(self, job: Job, seconds: float) -> None:
        """Say that a scorer has been loaded; others may help now."""
        with self._changed:
            job.load_seconds = max(seconds, job.load_seconds or 0.0)
            self._changed.notify_all()

    def is_finished(self, job: Job) -> bool:
        """Whether a scorer has nothing more to do, now or later."""
        with self._changed:
            return self.more is None and not job.queue and not job.cost_begun and not self.is_over_for(job)

    # --- chunks -----------------------------------------------------------------------------------------------------

    def next_chunk(self, job: Job, slot: Slot, *, ahead: bool = False) -> Positions | None:
        """Return the next chunk of a scorer for a slot, or None where there is none for it.

        With `ahead`, the chunk is prepared while another is being scored; the last chunks are not taken so, as a slot
        that has nothing to do could begin them at once.
        """
        with self._changed:
            if self.is_over_for(job) or not job.queue:
                return None
            if ahead and (self.deadline.is_set or len(job.queue) <= len(job.slots)):
                return None
            if self.deadline.is_set and self._is_needed_elsewhere(job, slot):
                return None
            chunk = self._take(job)
            if chunk is not None:
                job.cost_begun += job.items.cost(chunk)
            return chunk

    def finished(self, job: Job, chunk: Positions, seconds: float) -> None:
        """Say that a chunk is done, and how long it took."""
        cost = job.items.cost(chunk)
        with self._changed:
            job.cost_begun -= cost
            job.speed.add(cost, seconds)
            self._changed.notify_all()
        job.progress.done(cost)

    def abandoned(self, job: Job, chunk: Positions) -> None:
        """Say that a chunk was begun and will not be finished."""
        with self._changed:
            job.cost_begun -= job.items.cost(chunk)
            self._changed.notify_all()

    def fail(self, failure: Failure) -> None:
        """Say that a scorer, or the run, has failed."""
        job = failure.job
        with self._changed:
            if job is not None and job.failure is None:
                job.failure = failure.error
                job.drop_queue()
            self.failures.append(failure)
            if job is None or not self.keep_going:
                self.stop.set()
            self._changed.notify_all()

    # --- within the lock --------------------------------------------------------------------------------------------

    def _reserve(self) -> None:
        """Give every slot its first scorer before any thread starts, so that each scorer has a slot of its own."""
        for at_home in (True, False):
            for slot in self.slots:
                if slot.number in self._reserved:
                    continue
                for job in self._by_rank():
                    if not job.slots and (job.home == slot.device if at_home else slot.device in job.devices):
                        self._reserved[slot.number] = job
                        job.slots.add(slot.number)
                        break

    def _by_rank(self) -> list[Job]:
        waiting = [job for job in self.jobs if job.queue and job.failure is None]
        return sorted(waiting, key=lambda job: job.rank) if self.deadline.is_set else waiting

    def _choose(self, slot: Slot, held: Job | None) -> Job | None:
        reserved = self._reserved.pop(slot.number, None)
        waiting = [job for job in self._by_rank() if slot.device in job.devices]
        if self.deadline.is_set:
            waiting = [job for job in waiting if self._loads_in_time(job, slot)]
            waiting = [job for job in waiting if not self._is_needed_elsewhere(job, slot)]
        if reserved in waiting:
            return reserved
        if reserved is not None:
            reserved.slots.discard(slot.number)
        if held in waiting:
            return held
        unbegun = [job for job in waiting if not job.slots]
        unbegun.sort(key=lambda job: job.home != slot.device)  # stable: those at home first, each in its order
        if unbegun:
            return unbegun[0]
        helpful = [job for job in waiting if self._is_worth_helping(job, slot)]
        if not helpful:
            return None
        job = max(helpful, key=lambda job: job.seconds_waiting / len(job.slots))
        rows = sum(map(len, job.queue))
        self.helpings.append(Helping(job.name, slot.number, slot.device, rows))
        logger.info("%s (slot %d) helps with %s: %d rows wait", slot.device, slot.number, job.name, rows)
        return job

    def _is_worth_helping(self, job: Job, slot: Slot) -> bool:
        if self.shared(job, slot):
            return True
        if job.load_seconds is None or not job.speed.is_known or len(job.queue) < 2:
            return False
        return job.seconds_waiting / len(job.slots) > WORTH_LOADING * job.load_seconds

    def _loads_in_time(self, job: Job, slot: Slot) -> bool:
        if self.shared(job, slot):
            return True
        known = [other.load_seconds for other in self.jobs if other.load_seconds is not None]
        expected = job.load_seconds if job.load_seconds is not None else max(known, default=0.0)
        return expected < self.deadline.seconds_left

    def _is_needed_elsewhere(self, job: Job, slot: Slot) -> bool:
        """Whether a scorer with a greater weight will not be done in time unless this slot helps."""
        return any(
            other.rank < job.rank
            and slot.device in other.devices
            and other.slots
            and other.seconds_to_do / len(other.slots) > self.deadline.seconds_left
            and self._is_worth_helping(other, slot)
            for other in self._by_rank()
        )

    def _idle(self) -> bool:
        return not any(job.slots or job.cost_begun for job in self.jobs) and not self._reserved

    def _take(self, job: Job) -> Positions | None:
        if not self.deadline.is_set or not job.scorer.reads_texts:
            return job.take()
        if not job.speed.is_known:
            return take_probe(job)
        if not job.exchanging and self.sureness is not None and self._is_pressed(job):
            reorder(job, self.sureness(job), self.limit)
        return take_what_fits(job, self.deadline.seconds_left)

    def _is_pressed(self, job: Job) -> bool:
        """Whether what is to be done on a scorer's devices takes longer than there is time."""
        slots = [slot for slot in self.slots if slot.device in job.devices]
        seconds = sum(other.seconds_to_do for other in self.jobs if other.devices & job.devices)
        return seconds / max(len(slots), 1) > self.deadline.seconds_left

    # --- work that depends on work ----------------------------------------------------------------------------------

    def _plan_more(self) -> None:
        plan, error = self.more, None
        try:
            if plan is not None:
                plan()
        except StopScoring:  # the run has ended meanwhile
            pass
        except BaseException as caught:  # it runs in a worker's thread, where nobody else would see it
            error = caught
        with self._changed:
            self.more, self._planning = None, False
            self._changed.notify_all()
        if error is not None:
            self.fail(Failure(None, error))
