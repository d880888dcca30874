"""Which scorer a slot had best work for.

Every slot starts with a scorer of its own, as long as there are any. A slot that is done takes the next scorer that
nobody has begun. Where there is none, it steals work: it loads a scorer that others are still busy with, if what
remains of it is worth the loading.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmsys_ensemble.hosting.budget import Deadline
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.runtime.jobs import Job

logger = logging.getLogger(__name__)

WORTH_LOADING = 1.2
"""A slot steals work where what remains per slot takes this many times as long as loading."""


@dataclass(frozen=True)
class Steal:
    """A slot took over work of a scorer that another slot had begun.

    Attributes
    ----------
    scorer : str
        Whose work.
    slot : int
        Who took it.
    device : str
        The slot's.
    rows_waiting : int
        Rows that nobody had begun.
    """

    scorer: str
    slot: int
    device: str
    rows_waiting: int


class Placement:
    """Chooses scorers for slots; guarded by the scheduler's lock.

    Parameters
    ----------
    jobs : sequence of Job
        With filled queues.
    slots : sequence of Slot
        All slots of the run.
    deadline : Deadline
        When scoring must end.
    shared : callable
        Tells whether a job's scorer is loaded on a slot's device and may be used there at once.

    Attributes
    ----------
    steals : list of Steal
        All of them, in order.
    """

    def __init__(
        self, jobs: Sequence[Job], slots: Sequence[Slot], deadline: Deadline, shared: Callable[[Job, Slot], bool]
    ):
        self.jobs = list(jobs)
        self.slots = list(slots)
        self.deadline = deadline
        self.shared = shared
        self.steals: list[Steal] = []
        self._reserved: dict[int, Job] = {}
        self._reserve()

    @property
    def is_pending(self) -> bool:
        """Whether a slot has yet to take the scorer that is reserved for it."""
        return bool(self._reserved)

    def choose(self, slot: Slot, held: Job | None) -> Job | None:
        """Return the scorer for a slot, or None where it had best wait; `held` is the one that it has loaded."""
        reserved = self._reserved.pop(slot.number, None)
        waiting = [job for job in self._by_rank() if slot.device in job.devices]
        if self.deadline.is_set:
            waiting = [job for job in waiting if self._loads_in_time(job, slot)]
            waiting = [job for job in waiting if not self.is_needed_elsewhere(job, slot)]
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
        worth = [job for job in waiting if self._is_worth_stealing(job, slot)]
        return self._steal(max(worth, key=lambda job: job.seconds_waiting / len(job.slots)), slot) if worth else None

    def is_needed_elsewhere(self, job: Job, slot: Slot) -> bool:
        """Whether a scorer with a greater weight will not be done in time unless this slot steals from it."""
        return any(
            other.rank < job.rank
            and slot.device in other.devices
            and other.slots
            and other.seconds_to_do / len(other.slots) > self.deadline.seconds_left
            and self._is_worth_stealing(other, slot)
            for other in self._by_rank()
        )

    def is_pressed(self, job: Job) -> bool:
        """Whether what is to be done on a scorer's devices takes longer than there is time."""
        slots = [slot for slot in self.slots if slot.device in job.devices]
        seconds = sum(other.seconds_to_do for other in self.jobs if other.devices & job.devices)
        return seconds / max(len(slots), 1) > self.deadline.seconds_left

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
        waiting = [job for job in self.jobs if len(job.queue) and job.failure is None]
        return sorted(waiting, key=lambda job: job.rank) if self.deadline.is_set else waiting

    def _steal(self, job: Job, slot: Slot) -> Job:
        steal = Steal(job.name, slot.number, slot.device, job.queue.n_rows)
        self.steals.append(steal)
        logger.info(
            "%s (slot %d) steals work of %s: %d rows wait", slot.device, slot.number, job.name, steal.rows_waiting
        )
        return job

    def _is_worth_stealing(self, job: Job, slot: Slot) -> bool:
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
