"""Which chunks a run scores: at first, and once the first passes are there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.runtime.items import Items, Positions, pair_up, plan_chunks
from lmsys_ensemble.runtime.options import RunOptions


@dataclass(frozen=True, eq=False)
class Planner:
    """Cuts items into chunks, those of an earlier run as they were, and records new ones.

    Attributes
    ----------
    items : Items
        All items.
    options : RunOptions
        Say which rows get a second pass, and when.
    limit : int
        Characters of a new chunk.
    journal : Journal, optional
        Where chunks are recorded.
    recorded : sequence of sequence of str
        Hashes of the chunks of earlier runs.
    """

    items: Items
    options: RunOptions
    limit: int
    journal: Journal | None
    recorded: Sequence[Sequence[str]]

    def first(self) -> list[Positions]:
        """Return the chunks to begin with."""
        if self.options.swap == "all" and not self.options.swaps_later:
            order, pairs = pair_up(self.items)
            return self._record(*plan_chunks(self.items, order, self.limit, self.recorded, pairs))
        return self._record(*plan_chunks(self.items, np.unique(self.items.forward), self.limit, self.recorded))

    def exchanged(self, rows: NDArray[np.intp]) -> list[Positions]:
        """Return the chunks of some rows' second passes, in the order of the rows.

        Passes that are another row's first have a chunk already. Were they in one of these, too, a run that is resumed
        would find that chunk among the recorded ones, keep it, and cut the rest otherwise.
        """
        passes = self.items.backward[rows]
        distinct, first = np.unique(passes[~np.isin(passes, self.items.forward)], return_index=True)
        order = distinct[np.argsort(first)]
        kept, added = plan_chunks(self.items, order, self.limit, self.recorded)
        return self._record(kept, [np.sort(chunk) for chunk in added])

    def _record(self, kept: list[Positions], added: list[Positions]) -> list[Positions]:
        if self.journal is not None and added:
            self.journal.record_chunks([self.items.names(chunk) for chunk in added])
        return kept + added
