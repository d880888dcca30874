"""The end of a run: workers that stop when they are told to, and those that do not.

A scorer is told to stop when it reports progress. One that is inside a long call (reading weights from a disk, a kernel
that hangs) cannot be told, and no thread can be ended from outside, so a run that must end leaves it behind. What it
computes is ignored from then on. Its scorer and its GPU are lost to later runs until the call returns. Its thread is a
daemon, which keeps no process alive.
"""

import atexit
import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lmsys_ensemble.errors import DeviceError
from lmsys_ensemble.hosting.interrupt import Terminated
from lmsys_ensemble.hosting.scope import StopScope, StopScoring
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.scorers.base import Scorer

logger = logging.getLogger(__name__)

AFTER_SIGNAL_S = 5.0
"""Seconds that workers have to stop after Ctrl-C or SIGTERM; Docker, for one, kills after ten."""

AFTER_FAILURE_S = 60.0
"""Seconds that the other workers have when a scorer has failed: no result is awaited, but models must be freed."""

RETURN_S = 10.0
"""Seconds for which a run waits for a scorer that an earlier one left behind."""

EXIT_S = 5.0
"""Seconds for which a process that ends waits for what was left behind."""

_POLL_SECONDS = 0.1

LOADING, PREPARING, SCORING, CLOSING = "loading", "preparing rows", "scoring", "being closed"
"""What a scorer that was left behind may have been doing."""


def after_deadline_s(budget_s: float) -> float:
    """Return the seconds that workers have to stop after a deadline: a tenth of the budget, within limits."""
    return min(max(budget_s / 10, 0.5), 5.0)


@dataclass(frozen=True, eq=False)
class LeftBehind:
    """A scorer whose call had not returned when the run ended.

    Attributes
    ----------
    scorer : Scorer
        Whose call it is.
    device : str
        Where.
    doing : str
        What it was doing.
    threads : tuple of Thread
        The worker's, and that of the call where it is another.
    """

    scorer: Scorer
    device: str
    doing: str
    threads: tuple[threading.Thread, ...] = field(repr=False)

    @property
    def is_there(self) -> bool:
        """Whether the call is still running."""
        return any(thread.is_alive() for thread in self.threads)

    def wait(self, until: float) -> None:
        """Wait for the call until a moment of `time.monotonic`."""
        for thread in self.threads:
            thread.join(max(until - time.monotonic(), 0.0))

    def __str__(self) -> str:
        return f"scorer {self.scorer.name!r} on {self.device}, still {self.doing}"


class Stoppable(Protocol):
    """What it takes to stop a worker."""

    def start(self) -> None:
        """Begin."""

    @property
    def is_finished(self) -> bool:
        """Whether its thread has done all it had to."""

    def wait(self, seconds: float) -> None:
        """Wait until it is finished, or for some seconds."""

    def leave(self) -> LeftBehind | None:
        """Return what it is doing, or None if it does nothing that others would have to wait for."""


def run_all(workers: Sequence[Stoppable], scope: StopScope, budget_s: float | None) -> list[LeftBehind]:
    """Run workers to their end, or until they were told to stop and did not; return what was left behind.

    Afterwards no result comes in any more, and nothing is written to the journal.
    """

    def patience() -> float | None:
        if budget_s is not None and scope.deadline.is_over:
            return after_deadline_s(budget_s)
        return AFTER_FAILURE_S if scope.is_cancelled else None

    try:
        for worker in workers:
            worker.start()
        running = wait_for(workers, patience)
    except BaseException as error:
        scope.cancel()
        running = wait_briefly(workers, AFTER_SIGNAL_S)
        scope.gate.close()
        for left in leave(running):
            error.add_note(f"{left}, was left behind")
        raise
    scope.gate.close()
    return leave(running)


def wait_for(workers: Sequence[Stoppable], patience: Callable[[], float | None]) -> list[Stoppable]:
    """Wait until all workers have ended, and return those that have not when patience ends.

    Parameters
    ----------
    workers : sequence of Stoppable
        Started.
    patience : callable
        Returns the seconds that they have once they have been told to stop; None before that.
    """
    told: float | None = None
    while True:
        running = [worker for worker in workers if not worker.is_finished]
        seconds = patience()
        if seconds is not None and told is None:
            told = time.monotonic()
        if not running:
            for worker in workers:
                worker.wait(0)
            return []
        if seconds is not None and told is not None and time.monotonic() - told >= seconds:
            return running
        running[0].wait(_POLL_SECONDS)


def wait_briefly(workers: Sequence[Stoppable], seconds: float) -> list[Stoppable]:
    """Wait for workers that have been told to stop; a second Ctrl-C or SIGTERM ends the waiting."""
    try:
        return wait_for(workers, lambda: seconds)
    except (KeyboardInterrupt, Terminated):
        return [worker for worker in workers if not worker.is_finished]


# --- what was left behind -------------------------------------------------------------------------------------------

_left: list[LeftBehind] = []
_lock = threading.Lock()


def leave(workers: Sequence[Stoppable]) -> list[LeftBehind]:
    """Leave workers behind, once the gate is closed; say so, and remember what is lost with them."""
    found = [left for left in (worker.leave() for worker in workers) if left is not None]
    with _lock:
        if found and not _left:
            atexit.unregister(_wait_at_exit)
            atexit.register(_wait_at_exit)
        _left.extend(found)
    for left in found:
        logger.warning("%s, was left behind; what it computes is ignored", left)
    return found


def check_free(scorers: Sequence[Scorer], slots: Sequence[Slot], budget_s: float | None = None) -> None:
    """Make sure that no earlier run has left behind what is needed now; where one has, wait a little.

    Raises
    ------
    DeviceError
        If a scorer, its device or what loads models is still taken.
    """
    until = time.monotonic() + min(RETURN_S, RETURN_S if budget_s is None else budget_s)
    for left in _still_there():
        if not _is_in_the_way(left, scorers, slots):
            continue
        left.wait(until)
        if left.is_there:
            raise DeviceError(
                f"{left}, was left behind by an earlier run and has not returned since. Wait until it does, or start "
                "a new process"
            )


def _is_in_the_way(left: LeftBehind, scorers: Sequence[Scorer], slots: Sequence[Slot]) -> bool:
    if any(scorer is left.scorer for scorer in scorers):
        return True
    if left.doing == LOADING and left.scorer.needs_device:  # models are loaded one at a time in a process
        return any(scorer.needs_device for scorer in scorers)
    return left.device != "cpu" and any(slot.device == left.device for slot in slots)


def _still_there() -> list[LeftBehind]:
    with _lock:
        _left[:] = [left for left in _left if left.is_there]
        return list(_left)


def _wait_at_exit() -> None:
    """Have what was left behind end before Python does.

    A thread that comes back from PyTorch while Python is being taken down aborts the process. So it is interrupted
    wherever it is next in Python; in no other situation, as it may hold half of something then.
    """
    until = time.monotonic() + EXIT_S
    for left in _still_there():
        for thread in left.threads:
            _interrupt(thread)
    for left in _still_there():
        left.wait(until)


def _interrupt(thread: threading.Thread) -> None:
    if thread.ident is not None and thread.is_alive() and sys.implementation.name == "cpython":
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(StopScoring))
