"""A sample of rows that is timed before a run: how many rows, which, and how long loading and scoring them takes.

Planning takes no longer than a tenth of what it plans. The sample is drawn by length, so that its share of long rows is
that of the whole.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.scorers.base import Scorer

SHARE = 0.1
"""Share of the run's time that planning may take."""

MOST_ROWS = 64
"""Rows that are timed at most; more make the projection no better."""

READ_BYTES_PER_S = 1e9
"""Speed at which weights are assumed to be read and brought into place."""

LOAD_OVERHEAD_S = 0.6
"""Seconds assumed for every load beside reading its weights: configuration, tokenizer, adapter, golden rows."""


@dataclass(frozen=True)
class Guess:
    """What one scorer is expected to take, by arithmetic.

    Attributes
    ----------
    load_seconds : float
        Of one load; every copy that is timed is loaded.
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
    """Return how many rows of each scorer are timed; 0 where arithmetic must suffice.

    Loading and a sample of every scorer, with a row to warm up, take `SHARE` of the run at most by the guesses. Where
    loading alone would take more, nothing is timed.

    Parameters
    ----------
    guesses : sequence of Guess or None
        One per scorer; None for those that do not say what a row costs. These are timed on a twentieth of the rows,
        and on one at least, as there is nothing else to go by.
    n_rows, n_slots : int
        Of the run.
    run_seconds : float
        What the whole run is expected to take.
    spent : float
        Seconds that planning has taken already, of its share.
    """
    known = [guess for guess in guesses if guess is not None]
    left = SHARE * run_seconds - spent - sum(guess.load_seconds for guess in known)
    share = left / max(sum(guess.slot_seconds for guess in known), 1e-9)
    of_known = min(int(share * n_rows) - 1, MOST_ROWS, n_rows)  # one warms up
    of_unknown = min(max(n_rows // (20 * max(n_slots, 1)), 1), MOST_ROWS)
    return [of_unknown if guess is None else max(of_known, 0) for guess in guesses]


def sample_by_length(work: NDArray[np.float64], n_rows: int) -> NDArray[np.intp]:
    """Return the positions of `n_rows` rows that stand for all: the middle of each equal share, in order of work."""
    order = np.argsort(work, kind="stable")
    n_rows = min(n_rows, len(order))
    middles = ((np.arange(n_rows) + 0.5) * len(order) / n_rows).astype(np.intp)
    result: NDArray[np.intp] = order[middles]
    return result


def time_sample(scorer: Scorer, sample: Battles, slots: Sequence[Slot]) -> tuple[float, float]:
    """Load a scorer, score a sample on all slots at the same time, and free the scorer.

    Parameters
    ----------
    scorer : Scorer
        Not loaded.
    sample : Battles
        At least one row; every slot scores all rows.
    slots : sequence of Slot
        All of one device.

    Returns
    -------
    load_seconds : float
        Of one load.
    sample_seconds : float
        Of the sample, the mean over slots.
    """
    copies = [scorer] if scorer.shareable else [scorer, *(scorer.replica() for _ in slots[1:])]
    start = time.perf_counter()
    try:
        for copy in copies:
            copy.load(slots[0].device)
        load_seconds = (time.perf_counter() - start) / len(copies)
        callers = [(copies[position % len(copies)], slot) for position, slot in enumerate(slots)]
        return load_seconds, _time_together(callers, sample)
    finally:
        for copy in copies:
            copy.close()


def _time_together(callers: Sequence[tuple[Scorer, Slot]], sample: Battles) -> float:
    """Let every slot score the sample at the same time, after a warm-up, and return the mean of their seconds."""
    ready = threading.Barrier(len(callers))

    def measure(scorer: Scorer, slot: Slot) -> float:
        if scorer.needs_device and slot.cores:
            from lmsys_ensemble.compute.hardware import limit_threads

            limit_threads(len(slot.cores))
        with slot.pinned():
            scorer.score(sample[:1])
            prepared = scorer.prepare(sample) if slot.overlaps else None
            ready.wait()
            start = time.perf_counter()
            scorer.score_prepared(scorer.prepare(sample) if prepared is None else prepared)
            return time.perf_counter() - start

    with ThreadPoolExecutor(len(callers)) as threads:
        return float(np.mean([future.result() for future in [threads.submit(measure, *pair) for pair in callers]]))
