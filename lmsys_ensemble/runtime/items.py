"""What is scored: every distinct battle once, longest first, cut into chunks.

Identical rows are one item; the pass of a row with its responses exchanged is another item, or the same one where
a row and an exchanged row have the same texts. The order depends on the texts alone, not on the table's order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.data.battles import Battles

CHUNKS_PER_SLOT = 32
"""So many that the last chunks of the slots end at nearly the same time."""

MIN_CHUNK, MAX_CHUNK = 8_000, 256_000
"""Characters of a chunk: enough to fill batches, and no more than may be lost when a run is killed."""

HASH_DIGITS = 32

Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Items:
    """Distinct battles, longest first, ties by hash.

    Attributes
    ----------
    battles : Battles
        Rows that the items were made of.
    positions : ndarray of shape (n_items,)
        Row whose texts an item has.
    exchanged : ndarray of shape (n_items,)
        Whether it has them with the responses exchanged.
    hashes : ndarray of shape (n_items,)
        Content hashes in ASCII.
    costs : ndarray of shape (n_items,)
        Characters.
    forward : ndarray of shape (n_rows,)
        Item of every row.
    backward : ndarray of shape (n_rows,)
        Item of every row with its responses exchanged; empty where nobody asked for it.
    """

    battles: Battles
    positions: Positions
    exchanged: NDArray[np.bool_]
    hashes: NDArray[np.bytes_]
    costs: NDArray[np.int64]
    forward: Positions
    backward: Positions = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, chosen: Positions) -> Battles:
        """Return the battles of some items; an id occurs twice where a row is among them both ways."""
        rows = self.battles.take(self.positions[chosen])
        exchanged = self.exchanged[chosen]
        if not exchanged.any():
            return rows
        pairs = list(zip(rows.responses_a, rows.responses_b, exchanged, strict=True))
        return replace(
            rows, responses_a=[b if turned else a for a, b, turned in pairs],
            responses_b=[a if turned else b for a, b, turned in pairs],
        )  # fmt: skip

    def names(self, chosen: Positions) -> list[str]:
        """Return the content hashes of some items as text."""
        return [name.decode() for name in self.hashes[chosen].tolist()]

    def cost(self, chosen: Positions) -> int:
        """Return the characters of some items."""
        return int(self.costs[chosen].sum())

    def ids(self, chosen: Positions) -> list[object]:
        """Return the ids of all rows, in the table's order, that have one of some items either way."""
        rows = np.isin(self.forward, chosen)
        if len(self.backward):
            rows |= np.isin(self.backward, chosen)
        listed: list[object] = self.battles.ids[np.flatnonzero(rows)].tolist()
        return listed

    def partners(self) -> Positions:
        """Return for every item the one with the responses exchanged, itself where there is none."""
        partner = np.arange(len(self))
        if len(self.backward):
            partner[self.forward], partner[self.backward] = self.backward, self.forward
        return partner

    def locate(self, names: Sequence[str]) -> Positions:
        """Return the items with these hashes, -1 for those that are not there."""
        wanted = np.array([name.encode() for name in names], dtype=f"S{HASH_DIGITS}")
        order = self._by_hash
        found = np.minimum(np.searchsorted(self.hashes, wanted, sorter=order), len(self) - 1)
        items = order[found]
        return np.where(self.hashes[items] == wanted, items, -1)

    @cached_property
    def multiplicity(self) -> Positions:
        """How many of the user's rows every item stands for: as they are, or else with the responses exchanged."""
        forward = np.bincount(self.forward, minlength=len(self))
        return np.where(forward > 0, forward, np.bincount(self.backward, minlength=len(self)))

    @cached_property
    def _by_hash(self) -> Positions:
        return np.argsort(self.hashes, kind="stable")


def make_items(battles: Battles, both_ways: bool = False) -> Items:
    """Find the distinct battles of a table, with their responses exchanged, too, where asked for."""
    n_rows = len(battles)
    kind = f"S{HASH_DIGITS}"
    hashes = np.array(battles.content_hashes(), dtype=kind)
    if both_ways:
        hashes = np.concatenate([hashes, np.array(battles.swapped().content_hashes(), dtype=kind)])
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    costs = battles.characters()[first % max(n_rows, 1)]
    order = np.argsort(-costs, kind="stable")  # np.unique sorts, so that ties stay in the order of the hashes
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    item_of = rank[inverse]
    return Items(
        battles, (first % max(n_rows, 1))[order], (first >= n_rows)[order], distinct[order], costs[order],
        item_of[:n_rows], item_of[n_rows:],
    )  # fmt: skip


def make_rows(battles: Battles) -> Items:
    """Take every row for an item, in the table's order: for scorers that look rows up by id and read no texts."""
    rows = np.arange(len(battles))
    hashes = np.empty(0, dtype=f"S{HASH_DIGITS}")
    return Items(battles, rows, np.zeros(len(rows), dtype=bool), hashes, np.ones(len(rows), dtype=np.int64), rows)


def chunk_limit(total_cost: int, n_slots: int) -> int:
    """Return the characters of a chunk, of which every slot gets `CHUNKS_PER_SLOT` a scorer."""
    return max(min(total_cost // (CHUNKS_PER_SLOT * max(n_slots, 1)), MAX_CHUNK), MIN_CHUNK)


def cut(items: Items, order: Positions, limit: int, groups: Positions | None = None) -> list[Positions]:
    """Cut items, in the order given, into chunks of at most `limit` characters and at least one item.

    Parameters
    ----------
    items : Items
        All items.
    order : ndarray
        Items to cut.
    limit : int
        Characters of a chunk.
    groups : ndarray of shape (len(order),), optional
        Neighbours with the same number stay together.

    Returns
    -------
    list of ndarray
        Every item of `order` once.
    """
    if not len(order):
        return []
    starts = np.arange(len(order)) if groups is None else np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    ends = np.cumsum(np.add.reduceat(items.costs[order], starts))
    bounds = np.append(starts, len(order))
    chunks, start = [], 0
    while start < len(starts):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + limit, side="right")), start + 1)
        chunks.append(order[bounds[start] : bounds[stop]])
        start = stop
    return chunks


def plan_chunks(
    items: Items,
    order: Positions,
    limit: int,
    recorded: Sequence[Sequence[str]] = (),
    groups: Positions | None = None,
) -> tuple[list[Positions], list[Positions]]:
    """Cut items into chunks, those of an earlier run first and as they were.

    The numbers that a model gives depend in their last digits on what a batch holds; so a chunk that was interrupted
    is scored again as it was.

    Parameters
    ----------
    items : Items
        All items.
    order : ndarray
        Items to score, in this order; each once.
    limit : int
        Characters of a new chunk.
    recorded : sequence of sequence of str
        Hashes of the chunks of an earlier run. Those with an item that is not wanted are planned anew.
    groups : ndarray of shape (len(order),), optional
        As `cut` takes them.

    Returns
    -------
    kept, added : list of ndarray
        Chunks as they were, and new ones; together every item of `order` once.
    """
    is_open = np.zeros(len(items), dtype=bool)
    is_open[order] = True
    kept = []
    for names in recorded if len(items) else ():
        chunk = items.locate(names)
        if len(chunk) and (chunk >= 0).all() and is_open[chunk].all():
            kept.append(chunk)
            is_open[chunk] = False
    rest = is_open[order]
    return kept, cut(items, order[rest], limit, None if groups is None else groups[rest])


def pair_up(items: Items) -> tuple[Positions, Positions]:
    """Return all items, each beside the one with the responses exchanged, and the number of every one's pair.

    An engine can share their prompt.
    """
    everything = np.arange(len(items))
    pairs = np.minimum(everything, items.partners())
    order = np.lexsort((everything, pairs))
    return order, pairs[order]
