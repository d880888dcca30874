"""Worker threads: one a device, which loads, scores and frees there."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmsys_ensemble.battles import Battles
from lmsys_ensemble.errors import EnsembleError, ScoringError
from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.runtime.devices import assign_devices, threads_per_worker
from lmsys_ensemble.runtime.progress import Display, ScorerProgress, StopScoring
from lmsys_ensemble.scorers.base import NoProgress, Scorer

_POLL_SECONDS = 0.2


@dataclass
class _Job:
    """One scorer on its device, with what came of it."""

    scorer: Scorer
    device: str
    progress: ScorerProgress
    logits: Logits | None = None
    error: BaseException | None = None


@dataclass
class _Worker:
    """A thread and the jobs that it does one after the other."""

    jobs: list[_Job] = field(default_factory=list)
    thread: threading.Thread | None = None
    done: threading.Event = field(default_factory=threading.Event)


def score_all(scorers: Sequence[Scorer], battles: Battles, display: Display = "auto") -> list[Logits]:
    """Score battles with every scorer, each device in a thread of its own.

    Scorers on one GPU run one after the other, each freed before the next is loaded; on the CPU they run at the same
    time and share the cores.

    Parameters
    ----------
    scorers : sequence of Scorer
        Not yet loaded.
    battles : Battles
        What to score.
    display : {"auto", "bars", "lines", "off"}
        How progress is shown.

    Returns
    -------
    list of ndarray of shape (n_rows, n_classes)
        Logits of every scorer, in the order of `scorers`; rows in the order of `battles`.

    Raises
    ------
    DeviceError
        If a device is missing; before anything is loaded.
    EnsembleError
        What the first failing scorer raised; the others are stopped. What is no `EnsembleError` becomes a
        `ScoringError` that names scorer and device.
    KeyboardInterrupt
        After all threads have ended.
    """
    devices = assign_devices(scorers)
    n_threads = threads_per_worker(scorers, devices)
    stop = threading.Event()
    jobs = [
        _Job(scorer, device, ScorerProgress(scorer.name, device, position, display, stop))
        for position, (scorer, device) in enumerate(zip(scorers, devices, strict=True))
    ]
    failures: list[_Job] = []
    workers: dict[object, _Worker] = {}
    for position, job in enumerate(jobs):
        key = position if job.device == "cpu" else job.device
        workers.setdefault(key, _Worker()).jobs.append(job)
    try:
        for worker in workers.values():
            arguments = (worker.jobs, battles, n_threads, stop, failures)
            worker.thread = threading.Thread(target=_run, args=(worker.done, *arguments), daemon=True)
            worker.thread.start()
        _wait(list(workers.values()))
    except KeyboardInterrupt:
        stop.set()
        _wait(list(workers.values()))
        raise
    if failures:
        _raise_failure(failures[0])
    return [job.logits for job in jobs if job.logits is not None]


def _wait(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        # Not by join alone: Python takes a thread for finished when Ctrl-C interrupts its join.
        if worker.thread is not None and worker.thread.ident is not None:
            while not worker.done.wait(_POLL_SECONDS):
                pass
            worker.thread.join()


def _run(done: threading.Event, *arguments: Any) -> None:
    try:
        _work(*arguments)
    finally:
        done.set()


def _work(jobs: Sequence[_Job], battles: Battles, n_threads: int, stop: threading.Event, failures: list[_Job]) -> None:
    for job in jobs:
        if stop.is_set():
            return
        try:
            _do(job, battles, n_threads)
        except StopScoring:
            return
        except BaseException as error:  # SystemExit too: a thread that ends without a word would lose its scorer
            job.error = error
            failures.append(job)
            stop.set()
            return


def _do(job: _Job, battles: Battles, n_threads: int) -> None:
    scorer = job.scorer
    if scorer.needs_device and job.device == "cpu":
        from lmsys_ensemble.modeling.hardware import limit_threads

        limit_threads(n_threads)
    scorer.progress = job.progress
    try:
        scorer.load(job.device)
        job.progress.expect(len(battles), 0)
        logits = np.asarray(scorer.score(battles))
        _check_logits(logits, scorer, battles, job.device)
        job.logits = logits
    finally:
        scorer.progress = NoProgress()
        job.progress.close()
        scorer.close()
    job.progress.finish()


def _check_logits(logits: Logits, scorer: Scorer, battles: Battles, device: str) -> None:
    expected = (len(battles), scorer.task.n_classes)
    where = f"scorer {scorer.name!r} on {device}"
    if logits.shape != expected:
        raise ScoringError(
            f"{where} returned logits of shape {logits.shape}, expected {expected}",
            scorer=scorer.name,
            device=device,
        )
    faulty = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(faulty):
        ids = tuple(battles.ids[faulty[:10]])
        raise ScoringError(
            f"{where} gave NaN or infinite logits for {len(faulty)} of {len(battles)} rows "
            f"(ids {', '.join(map(repr, ids))}); try dtype='float32', or bfloat16 where float16 overflows",
            scorer=scorer.name,
            device=device,
            row_ids=ids,
        )


def _raise_failure(job: _Job) -> None:
    """Raise what went wrong with a job."""
    if isinstance(job.error, EnsembleError):
        job.error.add_note(f"scorer {job.scorer.name!r} on {job.device}; the other scorers were stopped")
        raise job.error
    raise ScoringError(
        f"scorer {job.scorer.name!r} on {job.device} failed: {type(job.error).__name__}: {job.error}. "
        "The other scorers were stopped",
        scorer=job.scorer.name,
        device=job.device,
    ) from job.error
