"""What a computation tells whoever watches it."""

from typing import Protocol

OUT_OF_MEMORY = "out of memory"
"""How the reason of a row begins that failed for want of memory: another run, or another device, may have more."""

NOT_FINITE = "NaN or infinite logits"
"""Why a row failed whose logits are no numbers."""


class Progress(Protocol):
    """Whom a scorer tells how far it is. The runtime gives each scorer one; by default nobody listens.

    A scorer calls these from the thread that called `Scorer.score`.
    """

    def phase(self, what: str) -> None:
        """Report what `Scorer.load` is doing: ``fetching``, ``loading``."""

    def advance(self, n_rows: int, n_tokens: int) -> None:
        """Report finished rows, and their tokens where there are any (else 0).

        Raises where the run is being stopped; let it pass.
        """

    def retried(self, why: str) -> None:
        """Report that a batch is run again, in smaller parts or in another number format."""

    def row_failed(self, row: int, why: str) -> None:
        """Report that a row, by its position among those being scored, gets no logits: they are NaN.

        A reason that begins with `OUT_OF_MEMORY` may have passed when the run is resumed: the row is tried again.
        """


class NoProgress:
    """Listens to nothing."""

    def phase(self, what: str) -> None:
        """Do nothing."""

    def advance(self, n_rows: int, n_tokens: int) -> None:
        """Do nothing."""

    def retried(self, why: str) -> None:
        """Do nothing."""

    def row_failed(self, row: int, why: str) -> None:
        """Do nothing."""
