"""The stop scope of a run: when it must end, what has failed, and whether results still count.

It is made first and handed to all that it governs: progress, jobs, scheduler and workers.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lmsys_ensemble.hosting.budget import Deadline


class StopScoring(BaseException):
    """Raised in a worker's thread to end it; not an `Exception`, so that no scorer catches it by accident."""


@dataclass(frozen=True)
class Failure:
    """What went wrong.

    Attributes
    ----------
    scorer : str or None
        Name of the scorer that failed; None where the run itself did.
    error : BaseException
        What was raised.
    device : str
        Where; empty where no device had a part in it.
    row_ids : tuple
        Ids of the rows that were being scored.
    """

    scorer: str | None
    error: BaseException
    device: str = ""
    row_ids: tuple[object, ...] = ()


class Gate:
    """Lets results in until the run has ended; whoever comes later is stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_closed = False

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Do something that counts, one thread at a time.

        Raises
        ------
        StopScoring
            If the gate is closed.
        """
        with self._lock:
            if self.is_closed:
                raise StopScoring
            yield

    def close(self) -> None:
        """Let nothing more in; what is just passing goes through first."""
        with self._lock:
            self.is_closed = True


class StopScope:
    """Says whether work goes on, for the run and per scorer; may be asked from any thread.

    Parameters
    ----------
    deadline : Deadline, optional
        When scoring must end; by default never.
    keep_going : bool
        Whether the other scorers go on when one has failed.

    Attributes
    ----------
    gate : Gate
        What results pass on their way into the outcome and the journal.
    failures : list of Failure
        All that went wrong, in order.
    """

    def __init__(self, deadline: Deadline | None = None, *, keep_going: bool = False):
        self.deadline = deadline or Deadline()
        self.keep_going = keep_going
        self.gate = Gate()
        self.failures: list[Failure] = []
        self._cancelled = threading.Event()
        self._failed: dict[str, BaseException] = {}

    @property
    def is_cancelled(self) -> bool:
        """Whether the run was told to stop, by a failure or from outside."""
        return self._cancelled.is_set()

    @property
    def is_over(self) -> bool:
        """Whether nothing new is to be begun: the run was told to stop, or time is up."""
        return self.is_cancelled or self.deadline.is_over

    def is_over_for(self, scorer: str) -> bool:
        """Whether a scorer is to stop at the next batch: all is over, or it has failed."""
        return self.is_over or scorer in self._failed

    def failure_of(self, scorer: str) -> BaseException | None:
        """Return the first error of a scorer, None where it has not failed."""
        return self._failed.get(scorer)

    def check(self, scorer: str) -> None:
        """Raise `StopScoring` if a scorer is to stop."""
        if self.is_over_for(scorer):
            raise StopScoring

    def cancel(self) -> None:
        """Tell the run to stop."""
        self._cancelled.set()

    def fail(self, failure: Failure) -> None:
        """Take note of a failure; it ends its scorer, and the run unless that keeps going."""
        if failure.scorer is not None:
            self._failed.setdefault(failure.scorer, failure.error)
        self.failures.append(failure)
        if failure.scorer is None or not self.keep_going:
            self.cancel()
