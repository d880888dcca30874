"""Which keys the tokens of a packed batch see, as the block mask that FlexAttention takes.

Every token sees at most two runs of keys: one that ends with itself, and one in the prefix that its sequence shares
with others. The lists of blocks are counted from these runs on the host, without a matrix of tokens by tokens, which
`create_block_mask` makes (tens of gigabytes for 65,536 tokens).
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from lmsys_ensemble.compute.packing import Span, to_device

BLOCK = 128
"""Queries and keys of a block."""

_FORWARD_ONLY: dict[str, Any] = (
    {"compute_q_blocks": False} if "compute_q_blocks" in inspect.signature(BlockMask.from_kv_blocks).parameters else {}
)
"""The lists by keys serve gradients, which nobody takes here; an older PyTorch makes them all the same."""


@dataclass(frozen=True)
class KeyRuns:
    """The keys that each token sees: ``own_from`` to itself, and ``prefix_from`` up to, without, ``prefix_stop``.

    Parameters
    ----------
    own_from, prefix_from, prefix_stop : ndarray of shape (n_tokens,), int32
        Positions in the batch. Without a prefix, the latter two are equal.
    """

    own_from: NDArray[np.int32]
    prefix_from: NDArray[np.int32]
    prefix_stop: NDArray[np.int32]


def find_key_runs(spans: Sequence[Span], n_tokens: int, window: int | None = None) -> KeyRuns:
    """Return the keys that each token of a batch sees.

    Parameters
    ----------
    spans : sequence of Span
        All spans of the batch.
    n_tokens : int
        Tokens of the batch with its padding, which comes last and of which every token sees only itself.
    window : int, optional
        A token sees itself and the ``window - 1`` tokens before it.
    """
    places = np.arange(n_tokens)
    own_from = places.copy()
    prefix_from, prefix_stop = np.zeros((2, n_tokens), dtype=np.int64)
    for span in spans:
        own_from[span.start : span.stop] = span.start
        if span.n_before:
            prefix_from[span.start : span.stop], prefix_stop[span.start : span.stop] = span.prefix
    if window is not None:
        reach = places - own_from + prefix_stop - window + 1  # the first key, were the prefix to end without bound
        prefix_from = np.clip(reach, prefix_from, prefix_stop)
        own_from = np.maximum(own_from, places - window + 1)
    return KeyRuns(own_from.astype(np.int32), prefix_from.astype(np.int32), prefix_stop.astype(np.int32))


def make_block_mask(runs: KeyRuns, device: str | torch.device) -> BlockMask:
    """Return the block mask of a batch whose tokens are a multiple of `BLOCK`.

    The window is in the runs and not in the mask's function, so that layers with and without one share a kernel.
    """
    n_tokens = len(runs.own_from)
    own_from, prefix_from, prefix_stop = (
        to_device(run, device) for run in (runs.own_from, runs.prefix_from, runs.prefix_stop)
    )

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (own_from[query] <= key) & (key <= query)
        seen: Tensor = own | ((prefix_from[query] <= key) & (key < prefix_stop[query]))
        return seen

    n_seen = count_seen(runs)
    full = n_seen == BLOCK * BLOCK
    n_partial, partial, n_full, fully = (
        to_device(part[None, None], device) for blocks in ((n_seen > 0) & ~full, full) for part in _listed(blocks)
    )
    mask: BlockMask = BlockMask.from_kv_blocks(
        n_partial,
        partial,
        n_full,
        fully,
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(n_tokens, n_tokens),
        **_FORWARD_ONLY,
    )
    return mask


def count_seen(runs: KeyRuns) -> NDArray[np.int64]:
    """Return how many pairs of a query and a key that it sees each pair of blocks has, (n_blocks, n_blocks)."""
    places = np.arange(len(runs.own_from))
    return _count(runs.own_from, places + 1) + _count(runs.prefix_from, runs.prefix_stop)


def _count(starts: NDArray[np.integer], stops: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count keys from `starts` up to, without, `stops`, by blocks: whole ones, less what the ends leave out."""
    n_blocks = len(starts) // BLOCK
    asking = np.flatnonzero(starts < stops)
    begin: NDArray[np.int64] = starts[asking].astype(np.int64)
    end: NDArray[np.int64] = stops[asking].astype(np.int64)
    first, last = begin // BLOCK, (end - 1) // BLOCK
    row = asking // BLOCK * (n_blocks + 1)

    def table(columns: NDArray[Any], values: NDArray[Any] | None = None) -> NDArray[np.int64]:
        sums = np.bincount(row + columns, values, minlength=n_blocks * (n_blocks + 1))
        return sums.astype(np.int64).reshape(n_blocks, n_blocks + 1)

    whole = BLOCK * np.cumsum(table(first) - table(last + 1), axis=1)
    left_out = table(first, begin - first * BLOCK) + table(last, (last + 1) * BLOCK - end)
    result: NDArray[np.int64] = (whole - left_out)[:, :-1]
    return result


def _listed(blocks: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return how many blocks of keys each block of queries has, and their numbers, those first."""
    order = np.argsort(~blocks, axis=1, kind="stable")
    return blocks.sum(axis=1, dtype=np.int32), order.astype(np.int32)
