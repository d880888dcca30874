"""What is scored: every distinct battle once, longest first, cut into chunks.

A row has an original pass and, where asked for, a swapped one, with its responses swapped. Each distinct text is one
item, so that identical rows share their items, and so do a row and another one that is its swap. The order depends on
the texts alone, not on the table's order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.data.battles import Battles

CHUNKS_PER_SLOT = 32
"""Enough that the last chunks of all slots end at nearly the same time."""

MIN_CHUNK, MAX_CHUNK = 8_000, 256_000
"""Characters of a chunk: enough to fill batches, and no more than may be lost when a run is killed."""

KEY_DIGITS = 32
"""Hexadecimal digits of a content hash, which is an item's key in the journal."""

Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Items:
    """Distinct battles, longest first, ties by key.

    Attributes
    ----------
    battles : Battles
        The rows that the items were made from.
    positions : ndarray of shape (n_items,)
        Per item, the row that has its texts.
    swapped : ndarray of shape (n_items,)
        Per item, whether that row's responses are swapped.
    keys : ndarray of shape (n_items,)
        Per item, its key in the journal: the content hash, in ASCII.
    costs : ndarray of shape (n_items,)
        Per item, its characters.
    original : ndarray of shape (n_rows,)
        Per row, the item of its original pass.
    swapped_pass : ndarray of shape (n_rows,)
        Per row, the item of its swapped pass; empty where it was not asked for.
    """

    battles: Battles
    positions: Positions
    swapped: NDArray[np.bool_]
    keys: NDArray[np.bytes_]
    costs: NDArray[np.int64]
    original: Positions
    swapped_pass: Positions = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, chosen: Positions) -> Battles:
        """Return the battles of some items; an id occurs twice where both passes of a row are among them."""
        rows = self.battles.take(self.positions[chosen])
        swapped = self.swapped[chosen]
        if not swapped.any():
            return rows
        pairs = list(zip(rows.responses_a, rows.responses_b, swapped, strict=True))
        return replace(
            rows, responses_a=[b if is_swapped else a for a, b, is_swapped in pairs],
            responses_b=[a if is_swapped else b for a, b, is_swapped in pairs],
        )  # fmt: skip

    def keys_of(self, chosen: Positions) -> list[str]:
        """Return the keys of some items as text."""
        return [key.decode() for key in self.keys[chosen].tolist()]

    def cost(self, chosen: Positions) -> int:
        """Return how many characters some items have together."""
        return int(self.costs[chosen].sum())

    def ids(self, chosen: Positions) -> list[object]:
        """Return the ids of the rows, in the table's order, that have some items as their original or swapped pass."""
        rows = np.isin(self.original, chosen)
        if len(self.swapped_pass):
            rows |= np.isin(self.swapped_pass, chosen)
        listed: list[object] = self.battles.ids[np.flatnonzero(rows)].tolist()
        return listed

    def partners(self) -> Positions:
        """Return, per item, the one with the responses swapped, or the item itself where there is none."""
        partner = np.arange(len(self))
        if len(self.swapped_pass):
            partner[self.original], partner[self.swapped_pass] = self.swapped_pass, self.original
        return partner

    def locate(self, keys: Sequence[str]) -> Positions:
        """Return the item of each key, -1 where there is none."""
        wanted = np.array([key.encode() for key in keys], dtype=f"S{KEY_DIGITS}")
        order = self._by_key
        found = np.minimum(np.searchsorted(self.keys, wanted, sorter=order), len(self) - 1)
        items = order[found]
        return np.where(self.keys[items] == wanted, items, -1)

    @cached_property
    def multiplicity(self) -> Positions:
        """Per item, the number of rows that have it as their original pass, or else as their swapped one."""
        original = np.bincount(self.original, minlength=len(self))
        return np.where(original > 0, original, np.bincount(self.swapped_pass, minlength=len(self)))

    @cached_property
    def _by_key(self) -> Positions:
        return np.argsort(self.keys, kind="stable")


def make_items(battles: Battles, both_passes: bool = False) -> Items:
    """Find the distinct battles of a table, and with `both_passes` those with the responses swapped, too."""
    n_rows = len(battles)
    kind = f"S{KEY_DIGITS}"
    keys = np.array(battles.content_hashes(), dtype=kind)
    if both_passes:
        keys = np.concatenate([keys, np.array(battles.swapped().content_hashes(), dtype=kind)])
    distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    costs = battles.characters()[first % max(n_rows, 1)]
    order = np.argsort(-costs, kind="stable")  # np.unique sorts, so that ties stay in the order of the keys
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    item_of = rank[inverse]
    return Items(
        battles, (first % max(n_rows, 1))[order], (first >= n_rows)[order], distinct[order], costs[order],
        item_of[:n_rows], item_of[n_rows:],
    )  # fmt: skip


def make_rows(battles: Battles) -> Items:
    """Make one item per row, in the table's order: for scorers that look rows up by id and read no texts."""
    rows = np.arange(len(battles))
    keys = np.empty(0, dtype=f"S{KEY_DIGITS}")
    return Items(battles, rows, np.zeros(len(rows), dtype=bool), keys, np.ones(len(rows), dtype=np.int64), rows)


def chunk_limit(total_cost: int, n_slots: int) -> int:
    """Return the characters of a chunk, such that each slot gets `CHUNKS_PER_SLOT` of them per scorer."""
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
        Keys of the chunks of an earlier run. A chunk with an item that is not wanted is planned anew.
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
    for keys in recorded if len(items) else ():
        chunk = items.locate(keys)
        if len(chunk) and (chunk >= 0).all() and is_open[chunk].all():
            kept.append(chunk)
            is_open[chunk] = False
    rest = is_open[order]
    return kept, cut(items, order[rest], limit, None if groups is None else groups[rest])


def pair_up(items: Items) -> tuple[Positions, Positions]:
    """Return all items, each beside the one with the responses swapped, and per item the number of its pair.

    An engine can share the prompt of a pair.
    """
    everything = np.arange(len(items))
    pairs = np.minimum(everything, items.partners())
    order = np.lexsort((everything, pairs))
    return order, pairs[order]
