"""The threads that load, score and free, one a slot."""

import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lmsys_ensemble.errors import ScoringError
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.progress import NOT_FINITE
from lmsys_ensemble.runtime import ending
from lmsys_ensemble.runtime.ending import (
    CLOSING,
    LOADING,
    PREPARING,
    SCORING,
    Gate,
    LeftBehind,
    after_deadline_s,
    leave,
    wait_briefly,
    wait_for,
)
from lmsys_ensemble.runtime.failures import Failure, too_many_failed
from lmsys_ensemble.runtime.instances import Instances
from lmsys_ensemble.runtime.items import Positions
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.preparing import Preparer
from lmsys_ensemble.runtime.progress import Call, StopScoring
from lmsys_ensemble.runtime.scheduler import Scheduler
from lmsys_ensemble.runtime.slots import Slot
from lmsys_ensemble.scorers.base import Scorer


@dataclass(frozen=True)
class Team:
    """What all workers share."""

    scheduler: Scheduler
    instances: Instances
    journal: Journal | None
    max_failed_rows: float
    gate: Gate


class JournalFailure(Exception):
    """Finished work could not be kept: not the scorer's fault, and no reason to go on without it."""


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
        self._now = team.scheduler.deadline.clock
        self._thread = threading.Thread(target=self._run, name=f"slot {slot.number} ({slot.device})", daemon=True)
        self._held: Job | None = None
        self._chunk: Positions | None = None
        self._limited = False
        self._at: tuple[Job, str] | None = None
        self._helper: Preparer | None = None

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
        at, helper = self._at, self._helper
        if at is None:
            return None
        threads = (self._thread,) if helper is None else (self._thread, helper.thread)
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
        except BaseException as error:  # a thread that ends without a word would lose its scorers
            self._fail(None, error)
        finally:
            self._finished.set()

    def _work_on(self, job: Job) -> None:
        try:
            scorer = self._load(job)
            with ExitStack() as stack:
                self._helper = stack.enter_context(Preparer()) if self.slot.overlaps else None
                self._drain(job, scorer, self._helper)
            if self.team.scheduler.more is None:  # else the same scorer may be wanted once more
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
            from lmsys_ensemble.modeling.hardware import limit_threads

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
        """Free the scorer that the slot has loaded, if any; what goes wrong is its scorer's failure."""
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
        if self.team.gate.is_closed:  # the run has ended, and nobody asks any more
            return
        ids = () if job is None or self._chunk is None else tuple(job.items.ids(self._chunk))
        self.team.scheduler.fail(Failure(job, error, self.slot.device, ids))

    # --- chunks -----------------------------------------------------------------------------------------------------

    def _drain(self, job: Job, scorer: Scorer, helper: Preparer | None) -> None:
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
                    following = scheduler.next_chunk(job, self.slot, ahead=True) if helper is not None else None
                    if helper is not None and following is not None:
                        ahead = following, helper.submit(_preparing(job, scorer, following))
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
            logits = _as_float32(scorer.score_prepared(prepared))
        reasons = _check(logits, call, job, chunk, self.slot.device)
        ended = self._now()
        job.tally.add("score", ended - scoring)
        with self.team.gate.passed():
            self._check_share(job, chunk, reasons)
            self._commit(job, chunk, logits, reasons, call, ended - start)
            with job.lock:
                job.store(chunk, logits, reasons)
        job.tally.count(len(chunk), call.n_tokens)
        self._chunk = None
        self.team.scheduler.finished(job, chunk, ended - start)

    def _check_share(self, job: Job, chunk: Positions, reasons: dict[int, str]) -> None:
        if not reasons:
            return
        with job.lock:
            failed = {**job.failed, **{int(chunk[position]): why for position, why in reasons.items()}}
        if len(failed) > self.team.max_failed_rows * job.n_wanted:
            raise too_many_failed(job, failed, self.slot.device, self.team.max_failed_rows)

    def _commit(
        self, job: Job, chunk: Positions, logits: Logits, reasons: dict[int, str], call: Call, seconds: float
    ) -> None:
        if self.team.journal is None or not job.scorer.reads_texts:
            return
        start = self._now()
        try:
            self.team.journal.commit(
                job.name, job.items.keys_of(chunk), logits.astype(np.float32, copy=False), reasons,
                device=self.slot.device, n_tokens=call.n_tokens, seconds=seconds,
            )  # fmt: skip
        except Exception as error:
            raise JournalFailure from error
        job.tally.add("journal", self._now() - start)


def run_all(workers: Sequence[Worker], team: Team, budget_s: float | None) -> list[LeftBehind]:
    """Run workers to their end, or until they have been told to stop and have not; return what was left behind.

    Afterwards no result comes in any more, and nothing is written to the journal.
    """
    scheduler = team.scheduler

    def patience() -> float | None:
        if budget_s is not None and scheduler.deadline.is_over:
            return after_deadline_s(budget_s)
        return ending.AFTER_FAILURE_S if scheduler.stop.is_set() else None

    try:
        for worker in workers:
            worker.start()
        running = wait_for(workers, patience)
    except BaseException as error:
        scheduler.stop.set()
        running = wait_briefly(workers, ending.AFTER_SIGNAL_S)
        team.gate.close()
        for left in leave(running):
            error.add_note(f"{left}, was left behind")
        raise
    team.gate.close()
    return leave(running)


def _preparing(job: Job, scorer: Scorer, chunk: Positions) -> Any:
    return lambda: scorer.prepare(job.items.take(chunk))


def _as_float32(logits: ArrayLike) -> Logits:
    """Return logits as they are kept; what does not fit becomes infinite here, where it is still checked."""
    with np.errstate(over="ignore"):
        return np.asarray(logits, dtype=np.float32)


def _check(logits: Logits, call: Call, job: Job, chunk: Positions, device: str) -> dict[int, str]:
    """Return why rows failed, by their position in the chunk."""
    expected = (len(chunk), job.logits.shape[1])
    if logits.shape != expected:
        raise ScoringError(
            f"scorer {job.name!r} on {device} returned logits of shape {logits.shape}, expected {expected}",
            scorer=job.name,
            device=device,
        )
    faulty = np.flatnonzero(~np.isfinite(logits).all(axis=1)).tolist()
    return {position: call.failed.get(position, NOT_FINITE) for position in sorted({*faulty, *call.failed})}
