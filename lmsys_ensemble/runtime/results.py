"""What came of one scorer's items: logits, or why there are none."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.runtime.items import Items, Positions

MISSING, DONE, FAILED = 0, 1, 2
"""What `Results.status` says of an item."""


@dataclass(eq=False, repr=False)
class Results:
    """The results of one scorer.

    Attributes
    ----------
    items : Items
        What there is to score; the run need not want all of it.
    n_classes : int
        Classes of the scorer's task.
    logits : ndarray of shape (n_items, n_classes)
        NaN where there are none.
    status : ndarray of shape (n_items,)
        `MISSING`, `DONE` or `FAILED`.
    wanted : ndarray of bool of shape (n_items,)
        Items that the run needs of the scorer.
    reasons : dict
        Why an item failed.
    lock : threading.Lock
        Held by whoever stores results.
    """

    items: Items
    n_classes: int
    logits: Logits = field(init=False)
    status: NDArray[np.uint8] = field(init=False)
    wanted: NDArray[np.bool_] = field(init=False)
    reasons: dict[int, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.logits = np.full((len(self.items), self.n_classes), np.nan, dtype=np.float32)
        self.status = np.zeros(len(self.items), dtype=np.uint8)
        self.wanted = np.zeros(len(self.items), dtype=bool)

    def want(self, chunk: Positions) -> Positions:
        """Take note that the run needs some items, and return those that are missing."""
        self.wanted[chunk] = True
        missing: Positions = chunk[self.status[chunk] == MISSING]
        return missing

    def restore(
        self, found: Positions, logits: Logits, reasons: Mapping[str, str], is_retried: Callable[[str], bool]
    ) -> int:
        """Take over what an earlier run has finished.

        Parameters
        ----------
        found : ndarray of shape (n_items,)
            Per item, its row of `logits`; -1 where it has none.
        logits : ndarray of shape (n_finished, n_classes)
            What was finished.
        reasons : mapping of str to str
            By key, why an item failed.
        is_retried : callable
            Tells by its reason whether an item that failed is scored again.

        Returns
        -------
        int
            Items that need not be scored.
        """
        there = np.flatnonzero(found >= 0)
        if len(there):
            self.logits[there] = logits[found[there]]
            self.status[there] = DONE
        for item, why in zip(self.items.locate(list(reasons)).tolist(), reasons.values(), strict=True):
            if item >= 0 and is_retried(why):
                self.status[item] = MISSING
            elif item >= 0:
                self.status[item], self.reasons[item] = FAILED, why
        return int((self.status != MISSING).sum())

    def store(self, chunk: Positions, logits: Logits, reasons: Mapping[int, str]) -> None:
        """Keep what came of a chunk.

        Parameters
        ----------
        chunk : ndarray
            Its items.
        logits : ndarray of shape (len(chunk), n_classes)
            NaN for items that failed.
        reasons : mapping of int to str
            By position in the chunk, why an item failed.
        """
        status = np.full(len(chunk), DONE, dtype=np.uint8)
        for position, why in reasons.items():
            status[position] = FAILED
            self.reasons[int(chunk[position])] = why
        self.logits[chunk] = logits
        self.status[chunk] = status  # last: others look at the logits of what is done

    def count_rows(self) -> tuple[int, int, float]:
        """Return how many of the user's rows are finished, how many are wanted, and how many an open item stands for.

        Where rows have two passes, passes are counted.
        """
        rows = self.items.multiplicity * self.wanted
        n_done, n_wanted = int(rows[self.status != MISSING].sum()), int(rows.sum())
        n_open = max(int((self.wanted & (self.status == MISSING)).sum()), 1)
        return n_done, n_wanted, (n_wanted - n_done) / n_open

    @property
    def n_wanted(self) -> int:
        """Items that the run needs."""
        return int(self.wanted.sum())

    @property
    def n_finished(self) -> int:
        """Items that the run needs and has, those that failed among them."""
        return int((self.wanted & (self.status != MISSING)).sum())

    @property
    def failed(self) -> dict[int, str]:
        """Why items failed that the run needs; an earlier run may have known others."""
        return {item: why for item, why in self.reasons.items() if self.wanted[item]}
