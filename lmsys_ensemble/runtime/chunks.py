"""The chunks of a scorer that nobody has begun, and what they cost."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.hosting.budget import PROBE_ROWS, order_of_need, split_to_fit
from lmsys_ensemble.runtime.items import Items, Positions, cut


class ChunkQueue:
    """A queue of chunks that always knows what they cost together.

    Not safe by itself for several threads; the scheduler's lock guards it.

    Parameters
    ----------
    items : Items
        What chunks hold.
    """

    def __init__(self, items: Items):
        self._items = items
        self._chunks: deque[Positions] = deque()
        self._cost = 0

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def chunks(self) -> list[Positions]:
        """All chunks, the next one first."""
        return list(self._chunks)

    @property
    def n_rows(self) -> int:
        """Items in all chunks."""
        return sum(map(len, self._chunks))

    @property
    def cost_waiting(self) -> int:
        """Characters in all chunks."""
        return self._cost

    def enqueue(self, chunk: Positions) -> None:
        """Add a chunk at the end."""
        self._chunks.append(chunk)
        self._cost += self._items.cost(chunk)

    def take(self) -> Positions:
        """Take the next chunk."""
        return self._taken(self._chunks.popleft())

    def take_probe(self) -> Positions:
        """Take the last few rows, the shortest, to learn a scorer's speed before a long chunk is begun in vain."""
        chunk = self._chunks.pop()
        if len(chunk) > PROBE_ROWS:
            self._chunks.append(chunk[:-PROBE_ROWS])
            chunk = chunk[-PROBE_ROWS:]
        return self._taken(chunk)

    def take_what_fits(self, seconds_per_cost: float, seconds_left: float) -> Positions | None:
        """Take the next chunk or the beginning of it, and drop rows that cannot be scored in the time left.

        Parameters
        ----------
        seconds_per_cost : float
            The scorer's speed.
        seconds_left : float
            Time left.

        Returns
        -------
        ndarray or None
            None where nothing fits; the queue is empty then.
        """
        while self._chunks:
            chunk = self.take()
            possible, n_now = split_to_fit(self._items.costs[chunk], seconds_per_cost, seconds_left)
            now, later = chunk[possible][:n_now], chunk[possible][n_now:]
            if len(later):
                self._chunks.appendleft(later)
                self._cost += self._items.cost(later)
            if len(now):
                return now
        return None

    def reorder(self, margin: NDArray[np.float64], limit: int) -> None:
        """Cut the waiting rows anew, those that are needed most first.

        Parameters
        ----------
        margin : ndarray of shape (n_items,)
            Per item, its margin by what other scorers have said; NaN where none has.
        limit : int
            Characters of a chunk.
        """
        if not self._chunks:
            return
        waiting = np.concatenate(self._chunks)
        order = order_of_need(margin[waiting], self._items.costs[waiting])
        self._chunks = deque(cut(self._items, waiting[order], limit))

    def drop(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()
        self._cost = 0

    def _taken(self, chunk: Positions) -> Positions:
        self._cost -= self._items.cost(chunk)
        return chunk
