"""How many rows to time before a run, so that planning takes no longer than a tenth of what it plans."""

from collections.abc import Sequence
from dataclasses import dataclass

SHARE = 0.1
"""Of the run's time that planning it may take."""

MOST_ROWS = 64
"""Rows that are timed at most; more make the projection no better."""

READ_BYTES_PER_S = 1e9
"""Speed at which weights are assumed to be read and brought into place."""

LOAD_OVERHEAD_S = 0.6
"""Assumed of every load beside its weights: configuration, tokenizer, adapter, golden rows."""


@dataclass(frozen=True)
class Guess:
    """What one scorer is thought to take, by arithmetic.

    Attributes
    ----------
    load_seconds : float
        Of one load, for every copy that is timed.
    slot_seconds : float
        Of all rows on one slot.
    """

    load_seconds: float
    slot_seconds: float


def guess_load(weight_bytes: int | None) -> float:
    """Return the seconds that a load is assumed to take."""
    return LOAD_OVERHEAD_S + (weight_bytes or 0) / READ_BYTES_PER_S


def rows_to_time(
    guesses: Sequence[Guess | None], n_rows: int, n_slots: int, run_seconds: float, spent: float = 0.0
) -> list[int]:
    """Return how many rows of each scorer are timed; 0 where arithmetic has to do.

    Loading and a sample of every scorer, with a row to warm up, take `SHARE` of the run at most by the guesses. Where
    loading alone would take more, nothing is timed.

    Parameters
    ----------
    guesses : sequence of Guess or None
        One a scorer; None for those that do not say what a row costs. These are timed on a twentieth of the rows,
        and on one at least, as there is nothing else to go by.
    n_rows, n_slots : int
        Of the run.
    run_seconds : float
        What the whole run is thought to take.
    spent : float
        Seconds that planning has taken already, of its share.
    """
    known = [guess for guess in guesses if guess is not None]
    left = SHARE * run_seconds - spent - sum(guess.load_seconds for guess in known)
    share = left / max(sum(guess.slot_seconds for guess in known), 1e-9)
    of_known = min(int(share * n_rows) - 1, MOST_ROWS, n_rows)  # one warms up
    of_unknown = min(max(n_rows // (20 * max(n_slots, 1)), 1), MOST_ROWS)
    return [of_unknown if guess is None else max(of_known, 0) for guess in guesses]
