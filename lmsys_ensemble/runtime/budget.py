"""Time: what is left of it, how fast a scorer is, what still fits, and what is needed most."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.probabilities import Probabilities

Clock = Callable[[], float]

_MEMORY = 0.8
"""Share of the weight that an earlier chunk keeps with each new one: long rows come first and cost more a character."""

_CAUTION = 0.5
"""Share of the time left that a chunk may take by projection; what is unfinished at the deadline is lost."""

PROBE_ROWS = 4
"""Rows, the shortest, with which a scorer's speed is first measured where time is short."""


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
    """Seconds that a scorer takes for a unit of cost, late chunks counting more."""

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
        """Seconds a character; 0 before anything is known."""
        return self._seconds / self._cost if self.is_known else 0.0


def split_to_fit(
    costs: NDArray[np.int64], seconds_per_cost: float, seconds_left: float
) -> tuple[NDArray[np.bool_], int]:
    """Find the rows of a chunk that may be begun in the time left.

    Parameters
    ----------
    costs : ndarray of shape (n_rows,)
        Characters of every row.
    seconds_per_cost : float
        The scorer's speed.
    seconds_left : float
        Time left.

    Returns
    -------
    possible : ndarray of shape (n_rows,)
        Which rows fit at all, each by itself.
    n_now : int
        How many of those are to be scored next: half of the time is the most that one chunk may take, so that a
        projection may be wrong by a factor of two before anything is lost.
    """
    seconds = costs * seconds_per_cost
    possible = seconds <= seconds_left
    together = np.cumsum(seconds[possible])
    n_now = int(np.searchsorted(together, _CAUTION * seconds_left, side="right"))
    return possible, min(max(n_now, 1), int(possible.sum()))


def margins(probabilities: Probabilities) -> NDArray[np.float64]:
    """Return how sure each row is: its largest probability less the second largest, of shape (n_rows,)."""
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    result: NDArray[np.float64] = two[:, 1] - two[:, 0]
    return result


def order_of_need(sureness: NDArray[np.float64], costs: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the order in which rows are scored when time is too short for all.

    Rows of which nothing is known (their `sureness` is NaN) come first, cheapest first, so that as many rows as can
    be get a prediction; then the others, least sure first.
    """
    known = np.where(np.isnan(sureness), -1.0, sureness)
    return np.lexsort((costs, known))
