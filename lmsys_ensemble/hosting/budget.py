"""Time: what is left of it, how fast a scorer is, what still fits, and what is needed most."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Clock = Callable[[], float]

_MEMORY = 0.8
"""Factor by which every later chunk lowers a chunk's weight: long rows come first and cost more per character."""

_CAUTION = 0.5
"""Share of the time left that a chunk may take by projection: what is unfinished at the deadline is lost."""

PROBE_ROWS = 4
"""Number of rows, the shortest, on which a speed is first measured where there is a deadline."""


@dataclass(frozen=True)
class Deadline:
    """The moment at which scoring must have ended.

    Parameters
    ----------
    at : float
        By the clock; infinite where there is no budget.
    clock : callable
        Returns seconds.
    """

    at: float = math.inf
    clock: Clock = time.monotonic

    @property
    def is_set(self) -> bool:
        """Whether there is one at all."""
        return self.at < math.inf

    @property
    def seconds_left(self) -> float:
        """Seconds until then, negative afterwards."""
        return self.at - self.clock() if self.is_set else math.inf

    @property
    def is_over(self) -> bool:
        """Whether it has passed."""
        return self.is_set and self.clock() >= self.at


def seconds_left(budget_s: float | None, started: float, clock: Clock = time.monotonic) -> float | None:
    """Return what is left of a time budget that began at `started`; None where there is none."""
    return None if budget_s is None else started + budget_s - clock()


class Speed:
    """Seconds that a scorer takes per character; late chunks count more."""

    def __init__(self) -> None:
        self._cost = self._seconds = 0.0

    def add(self, cost: float, seconds: float) -> None:
        """Take note of a finished chunk."""
        self._cost = _MEMORY * self._cost + cost
        self._seconds = _MEMORY * self._seconds + seconds

    @property
    def is_known(self) -> bool:
        """Whether a chunk has been finished."""
        return self._cost > 0

    @property
    def seconds_per_cost(self) -> float:
        """Seconds per character; 0 before anything is known."""
        return self._seconds / self._cost if self.is_known else 0.0


def split_to_fit(
    costs: NDArray[np.int64], seconds_per_cost: float, seconds_left: float
) -> tuple[NDArray[np.bool_], int]:
    """Find the rows of a chunk that may be begun in the time left.

    Parameters
    ----------
    costs : ndarray of shape (n_rows,)
        Per row, its characters.
    seconds_per_cost : float
        The scorer's speed.
    seconds_left : float
        Time left.

    Returns
    -------
    possible : ndarray of shape (n_rows,)
        Per row, whether it fits by itself.
    n_now : int
        How many of those are to be scored next. A chunk may take half of the time left at most, so that a projection
        may be wrong by a factor of two before anything is lost.
    """
    seconds = costs * seconds_per_cost
    possible = seconds <= seconds_left
    together = np.cumsum(seconds[possible])
    n_now = int(np.searchsorted(together, _CAUTION * seconds_left, side="right"))
    return possible, min(max(n_now, 1), int(possible.sum()))


def order_of_need(margin: NDArray[np.float64], costs: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the order in which rows are scored when time is too short for all.

    Rows of which nothing is known (their margin is NaN) come first, the cheapest of them first, so that as many rows
    as possible get a prediction. The others follow, those with the smallest margin first.
    """
    known = np.where(np.isnan(margin), -1.0, margin)
    return np.lexsort((costs, known))
