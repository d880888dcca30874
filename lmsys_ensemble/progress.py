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
