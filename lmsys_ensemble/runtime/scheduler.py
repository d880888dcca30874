"""Who does what next: hands out scorers and chunks.

`placement` says which scorer a slot had best work for. Chunks are handed out one at a time, so that all slots end at
nearly the same time.
"""

import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.hosting.scope import Failure, StopScope, StopScoring
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.runtime.items import Positions
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.placement import Placement, Steal

_POLL_SECONDS = 0.2


class Scheduler:
    """Hands out scorers and chunks to the slots' threads; all its methods may be called from any thread.

    Parameters
    ----------
    jobs : sequence of Job
        With filled queues.
    slots : sequence of Slot
        Each has one thread.
    limit : int
        Characters of a chunk.
    scope : StopScope
        Says when the run ends.
    shared : callable
        Tells whether a job's scorer is loaded on a slot's device and may be used there at once.
    margin : callable, optional
        Returns, per item of a job, its margin by what has been scored so far (NaN: nothing has). Asked once per chunk
        when time is short, and never under the scheduler's lock, as it blends rows.
    more : callable, optional
        Queues work that depends on finished work, and returns the failures that it has found. Called once, in a
        worker's thread, when all other work is done.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        slots: Sequence[Slot],
        limit: int,
        scope: StopScope,
        *,
        shared: Callable[[Job, Slot], bool] = lambda job, slot: False,
        margin: Callable[[Job], NDArray[np.float64]] | None = None,
        more: Callable[[], Iterable[Failure]] | None = None,
    ):
        self.jobs = list(jobs)
        self.limit = limit
        self.scope = scope
        self.margin = margin
        self.more = more
        self._placement = Placement(jobs, slots, scope.deadline, shared)
        self._planning = False
        self._changed = threading.Condition()

    @property
    def steals(self) -> list[Steal]:
        """What slots took over from each other, in order."""
        return self._placement.steals

    # --- scorers ----------------------------------------------------------------------------------------------------

    def next_job(self, slot: Slot, held: Job | None = None) -> Job | None:
        """Wait until there is a scorer for a slot and return it, or None at the end.

        Parameters
        ----------
        slot : Slot
            Who asks.
        held : Job, optional
            The job whose scorer the slot still has loaded.
        """
        while True:
            with self._changed:
                if self.scope.is_over:
                    return None
                if not self._planning:
                    job = self.offer(slot, held)
                    if job is not None:
                        return job
                    if self._is_idle():
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
            job = self._placement.choose(slot, held)
            if job is not None:
                job.slots.add(slot.number)
            return job

    def leave(self, job: Job, slot: Slot) -> None:
        """Say that a slot no longer works for a scorer."""
        with self._changed:
            job.slots.discard(slot.number)
            self._changed.notify_all()

    def loaded(self, job: Job, seconds: float) -> None:
        """Say that a scorer has been loaded; other slots may steal from it now."""
        with self._changed:
            job.load_seconds = max(seconds, job.load_seconds or 0.0)
            self._changed.notify_all()

    def is_finished(self, job: Job) -> bool:
        """Whether a scorer has nothing more to do, now or later."""
        with self._changed:
            is_done = not len(job.queue) and not job.cost_begun
            return self.more is None and is_done and not self.scope.is_over_for(job.name)

    # --- chunks -----------------------------------------------------------------------------------------------------

    def next_chunk(self, job: Job, slot: Slot, *, ahead: bool = False) -> Positions | None:
        """Return the next chunk of a scorer for a slot, or None where there is none for it.

        With `ahead`, the chunk is prepared while another is being scored. The last chunks are not taken ahead, as a
        slot that has nothing to do could begin them at once; nor is any where there is a deadline.
        """
        deadline = self.scope.deadline
        if ahead and deadline.is_set:
            return None
        margin = self._margin_if_pressed(job)
        with self._changed:
            if self.scope.is_over_for(job.name) or not len(job.queue):
                return None
            if ahead and len(job.queue) <= len(job.slots):
                return None
            if deadline.is_set and self._placement.is_needed_elsewhere(job, slot):
                return None
            chunk = self._take(job, margin)
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
        with self._changed:
            for job in self.jobs:
                if job.name == failure.scorer:
                    job.queue.drop()
            self.scope.fail(failure)
            self._changed.notify_all()

    # --- within -----------------------------------------------------------------------------------------------------

    def _is_idle(self) -> bool:
        return not any(job.slots or job.cost_begun for job in self.jobs) and not self._placement.is_pending

    def _margin_if_pressed(self, job: Job) -> NDArray[np.float64] | None:
        """Return the margins of a scorer's items where they decide which come next: time is short, and rows wait.

        The lock is held for the decision only, not while rows are blended. Meanwhile other slots may take chunks;
        margins are of items, so that they hold for whatever is waiting afterwards.
        """
        if self.margin is None or not self.scope.deadline.is_set or not job.scorer.reads_texts:
            return None
        with self._changed:
            is_asked = len(job.queue) and job.speed.is_known and not job.swapping
            if not is_asked or self.scope.is_over_for(job.name) or not self._placement.is_pressed(job):
                return None
        return self.margin(job)

    def _take(self, job: Job, margin: NDArray[np.float64] | None) -> Positions | None:
        deadline = self.scope.deadline
        if not deadline.is_set or not job.scorer.reads_texts:
            return job.queue.take()
        if not job.speed.is_known:
            return job.queue.take_probe()
        if margin is not None:
            job.queue.reorder(margin, self.limit)
        return job.queue.take_what_fits(job.speed.seconds_per_cost, deadline.seconds_left)

    def _plan_more(self) -> None:
        plan, error = self.more, None
        found: list[Failure] = []
        try:
            if plan is not None:
                found = list(plan())
        except StopScoring:  # the run has ended meanwhile
            pass
        except BaseException as caught:  # it runs in a worker's thread, where nobody else would see it
            error = caught
        for failure in found:  # before any slot takes up what was queued
            self.fail(failure)
        with self._changed:
            self.more, self._planning = None, False
            self._changed.notify_all()
        if error is not None:
            self.fail(Failure(None, error))
