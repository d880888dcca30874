"""Reports of a scorer that is at work: how far it is, and which rows failed."""

from typing import Protocol

OUT_OF_MEMORY = "out of memory"
"""Beginning of the reason of a row that ran out of memory; another run, or another device, may have more."""

NOT_FINITE = "NaN or infinite logits"
"""Reason of a row whose logits are NaN or infinite."""


class Progress(Protocol):
    """Receives a scorer's reports. The runtime gives one to each scorer; by default reports are ignored.

    A scorer calls these from the thread that called `Scorer.score`.
    """

    def phase(self, what: str) -> None:
        """Report what `Scorer.load` is doing: ``fetching``, ``loading``."""

    def advance(self, n_rows: int, n_tokens: int) -> None:
        """Report finished rows, and their tokens where there are any (else 0).

        It raises an exception where the run is being stopped; do not catch that.
        """

    def retried(self, why: str) -> None:
        """Report that a batch is run again, in smaller parts or in another number format."""

    def row_failed(self, row: int, why: str) -> None:
        """Report that a row, by its position among those being scored, gets no logits: they are NaN.

        A row whose reason begins with `OUT_OF_MEMORY` is tried again when the run is resumed.
        """


class NoProgress:
    """Ignores all reports."""

    def phase(self, what: str) -> None:
        """Do nothing."""

    def advance(self, n_rows: int, n_tokens: int) -> None:
        """Do nothing."""

    def retried(self, why: str) -> None:
        """Do nothing."""

    def row_failed(self, row: int, why: str) -> None:
        """Do nothing."""


class GroupedProgress:
    """Passes reports on where several rows are one: a row is finished with the last of its group.

    Parameters
    ----------
    progress : Progress
        Told of rows.
    size : int
        Rows of every group; they lie one behind the other.
    """

    def __init__(self, progress: Progress, size: int):
        self._progress = progress
        self._size = size
        self._n_finished = 0
        self._failed: set[int] = set()

    def phase(self, what: str) -> None:
        """Pass it on."""
        self._progress.phase(what)

    def advance(self, n_rows: int, n_tokens: int) -> None:
        """Report as many whole groups as are finished by now."""
        before = self._n_finished // self._size
        self._n_finished += n_rows
        self._progress.advance(self._n_finished // self._size - before, n_tokens)

    def retried(self, why: str) -> None:
        """Pass it on."""
        self._progress.retried(why)

    def row_failed(self, row: int, why: str) -> None:
        """Report a group with the first of its rows that fails."""
        group = row // self._size
        if group not in self._failed:
            self._failed.add(group)
            self._progress.row_failed(group, why)
