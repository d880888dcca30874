"""The threads that load, score and free, one per slot."""

import threading
import traceback
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmsys_ensemble.errors import ScoringError
from lmsys_ensemble.hosting.ending import CLOSING, LOADING, PREPARING, SCORING, LeftBehind
from lmsys_ensemble.hosting.progress import CallTally
from lmsys_ensemble.hosting.scope import Failure, StopScope, StopScoring
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.probabilities import Logits, mark_failed
from lmsys_ensemble.runtime.failures import too_many_failed
from lmsys_ensemble.runtime.instances import Instances
from lmsys_ensemble.runtime.items import Positions
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.preparing import Preparer
from lmsys_ensemble.runtime.scheduler import Scheduler
from lmsys_ensemble.scorers.base import Scorer


@dataclass(frozen=True)
class Team:
    """What all workers share.

    Attributes
    ----------
    scope : StopScope
        Says when they stop, and lets results in.
    scheduler : Scheduler
        Says what each does next.
    instances : Instances
        Loads and frees scorers.
    journal : Journal, optional
        Keeps finished chunks.
    max_failed_rows : float
        Share of a scorer's rows that may fail.
    """

    scope: StopScope
    scheduler: Scheduler
    instances: Instances
    journal: Journal | None
    max_failed_rows: float


class JournalFailure(Exception):
    """Finished work could not be kept: the run has failed, not the scorer."""


class Worker:
    """The thread of one slot.

    Parameters
    ----------
    slot : Slot
        Where it computes.
    team : Team
        What it shares with the others.
    """

    def __init__(self, slot: Slot, team: Team):
        self.slot = slot
        self.team = team
        self._finished = threading.Event()
        self._now = team.scope.deadline.clock
        self._thread = threading.Thread(target=self._run, name=f"slot {slot.number} ({slot.device})", daemon=True)
        self._held: Job | None = None
        self._chunk: Positions | None = None
        self._limited = False
        self._at: tuple[Job, str] | None = None
        self._preparer: Preparer | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_finished(self) -> bool:
        """Whether the thread has done all it had to, or was never started."""
        return self._thread.ident is None or self._finished.is_set()

    def wait(self, seconds: float) -> None:
        """Wait for the end of the thread, or for some seconds.

        Not by join alone: Python takes a thread for finished when Ctrl-C interrupts its join.
        """
        if self._thread.ident is not None and self._finished.wait(seconds):
            self._thread.join()

    def leave(self) -> LeftBehind | None:
        """Return what the thread is doing with a scorer, None where it has none."""
        at, preparer = self._at, self._preparer
        if at is None:
            return None
        threads = (self._thread,) if preparer is None else (self._thread, preparer.thread)
        return LeftBehind(at[0].scorer, self.slot.device, at[1], threads)

    def _run(self) -> None:
        scheduler = self.team.scheduler
        try:
            while (job := scheduler.next_job(self.slot, self._held)) is not None:
                try:
                    self._work_on(job)
                finally:
                    scheduler.leave(job, self.slot)
                if scheduler.is_finished(job) and job.failure is None:
                    job.progress.finish()
            self._let_go()
        except BaseException as error:  # a thread that ends silently would lose its scorers
            self._fail(None, error)
        finally:
            self._finished.set()

    def _work_on(self, job: Job) -> None:
        try:
            scorer = self._load(job)
            with ExitStack() as stack:
                self._preparer = stack.enter_context(Preparer()) if self.slot.overlaps else None
                self._drain(job, scorer, self._preparer)
            if self.team.scheduler.more is None:  # else the same scorer may be needed again
                self._let_go()
        except StopScoring:
            self._let_go_of_failed(job, spoilt=False)
        except JournalFailure as error:
            self._let_go_of_failed(job, spoilt=False)
            self._fail(None, error.__cause__ or error)
        except BaseException as error:  # SystemExit, too
            traceback.clear_frames(error.__traceback__)  # they hold batches, and thereby a GPU's memory
            self._fail(job, error)
            self._let_go_of_failed(job, spoilt=True)

    def _load(self, job: Job) -> Scorer:
        if self._held is not job:
            self._let_go()
        if job.scorer.needs_device and self.slot.cores and not self._limited:
            from lmsys_ensemble.compute.hardware import limit_threads

            limit_threads(len(self.slot.cores))
            self._limited = True
        if self.slot.device not in job.tally.devices:
            job.tally.devices.append(self.slot.device)
        self._held, self._chunk, self._at = job, None, (job, LOADING)
        scorer, seconds = self.team.instances.acquire(job, self.slot)
        if seconds is not None:
            self.team.scheduler.loaded(job, seconds)
            job.tally.add("load", seconds)
        job.progress.expect(job.n_to_score, job.cost_to_score)
        return scorer

    def _let_go(self, *, spoilt: bool = False) -> None:
        """Free the scorer that the slot has loaded, if any; an error counts as that scorer's failure."""
        job, self._held = self._held, None
        if job is None:
            return
        self._at = job, CLOSING
        try:
            self.team.instances.release(job, self.slot, spoilt=spoilt)
        except BaseException as error:
            self._fail(job, error)
        self._at = None

    def _let_go_of_failed(self, job: Job, *, spoilt: bool) -> None:
        self._let_go(spoilt=spoilt)
        job.progress.close()

    def _fail(self, job: Job | None, error: BaseException) -> None:
        if self.team.scope.gate.is_closed:  # the run has ended, and nobody asks any more
            return
        ids = () if job is None or self._chunk is None else tuple(job.items.ids(self._chunk))
        self.team.scheduler.fail(Failure(None if job is None else job.name, error, self.slot.device, ids))

    # --- chunks -----------------------------------------------------------------------------------------------------

    def _drain(self, job: Job, scorer: Scorer, preparer: Preparer | None) -> None:
        scheduler = self.team.scheduler
        ahead: tuple[Positions, Future[Any]] | None = None
        try:
            while True:
                if ahead is not None:
                    (chunk, future), ahead = ahead, None
                    prepare = future.result
                else:
                    following = scheduler.next_chunk(job, self.slot)
                    if following is None:
                        return
                    chunk = following
                    prepare = _preparing(job, scorer, chunk)
                self._chunk = chunk
                try:
                    start = self._now()
                    self._at = job, PREPARING
                    prepared = prepare()
                    self._at = job, SCORING
                    job.tally.add("prepare", self._now() - start)
                    following = scheduler.next_chunk(job, self.slot, ahead=True) if preparer is not None else None
                    if preparer is not None and following is not None:
                        ahead = following, preparer.submit(_preparing(job, scorer, following))
                    self._score(job, scorer, chunk, prepared, start)
                except BaseException:
                    scheduler.abandoned(job, chunk)
                    raise
        finally:
            if ahead is not None:
                scheduler.abandoned(job, ahead[0])

    def _score(self, job: Job, scorer: Scorer, chunk: Positions, prepared: Any, start: float) -> None:
        call = job.progress.begin()
        scoring = self._now()
        with self.slot.pinned():
            scored = scorer.score_prepared(prepared)
        logits, reasons = self._check(job, chunk, scored, call)
        ended = self._now()
        job.tally.add("score", ended - scoring)
        with self.team.scope.gate.passed():
            self._check_share(job, chunk, reasons)
            self._commit(job, chunk, logits, reasons, call, ended - start)
            with job.results.lock:
                job.results.store(chunk, logits, reasons)
        job.tally.count(len(chunk), call.n_tokens)
        self._chunk = None
        self.team.scheduler.finished(job, chunk, ended - start)

    def _check(self, job: Job, chunk: Positions, scored: Any, call: CallTally) -> tuple[Logits, dict[int, str]]:
        """Return logits with NaN in rows that failed, and by position why these did."""
        shape, expected = np.shape(scored), (len(chunk), job.results.n_classes)
        if shape != expected:
            raise ScoringError(
                f"scorer {job.name!r} on {self.slot.device} returned logits of shape {shape}, expected {expected}",
                scorer=job.name,
                device=self.slot.device,
            )
        return mark_failed(scored, call.failed)

    def _check_share(self, job: Job, chunk: Positions, reasons: dict[int, str]) -> None:
        if not reasons:
            return
        with job.results.lock:
            failed = {**job.results.failed, **{int(chunk[position]): why for position, why in reasons.items()}}
        if len(failed) > self.team.max_failed_rows * job.results.n_wanted:
            raise too_many_failed(job, failed, self.slot.device, self.team.max_failed_rows)

    def _commit(
        self, job: Job, chunk: Positions, logits: Logits, reasons: dict[int, str], call: CallTally, seconds: float
    ) -> None:
        if self.team.journal is None or not job.scorer.reads_texts:
            return
        start = self._now()
        try:
            self.team.journal.commit(
                job.name, job.items.keys_of(chunk), logits, reasons,
                device=self.slot.device, n_tokens=call.n_tokens, seconds=seconds,
            )  # fmt: skip
        except Exception as error:
            raise JournalFailure from error
        job.tally.add("journal", self._now() - start)


def _preparing(job: Job, scorer: Scorer, chunk: Positions) -> Any:
    return lambda: scorer.prepare(job.items.take(chunk))
