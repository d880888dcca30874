"""Which chunks a run scores: at first, and once the original passes are done."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.runtime.items import Items, Positions, pair_up, plan_chunks
from lmsys_ensemble.runtime.options import RunOptions


@dataclass(frozen=True, eq=False)
class Planner:
    """Cuts items into chunks, keeps those of an earlier run as they were, and records new ones.

    Attributes
    ----------
    items : Items
        All items.
    options : RunOptions
        Say which rows get a swapped pass, and when.
    limit : int
        Characters of a new chunk.
    journal : Journal, optional
        Where chunks are recorded.
    recorded : sequence of sequence of str
        Keys of the chunks of earlier runs.
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
        return self._record(*plan_chunks(self.items, np.unique(self.items.original), self.limit, self.recorded))

    def swapped(self, rows: NDArray[np.intp]) -> list[Positions]:
        """Return the chunks of some rows' swapped passes, in the order of the rows.

        A swapped pass that is another row's original one has a chunk already and is left out. Otherwise a resumed run
        would find both chunks among the recorded ones, keep the first, and cut the rest of the other anew.
        """
        passes = self.items.swapped_pass[rows]
        distinct, first = np.unique(passes[~np.isin(passes, self.items.original)], return_index=True)
        order = distinct[np.argsort(first)]
        kept, added = plan_chunks(self.items, order, self.limit, self.recorded)
        return self._record(kept, [np.sort(chunk) for chunk in added])

    def _record(self, kept: list[Positions], added: list[Positions]) -> list[Positions]:
        if self.journal is not None and added:
            self.journal.record_chunks([self.items.keys_of(chunk) for chunk in added])
        return kept + added
