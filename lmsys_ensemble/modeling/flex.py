"""Causal attention over packed batches in one kernel: PyTorch's FlexAttention.

The path for GPUs from compute capability 8.0 on. Documents, shared prefixes and sliding windows are a block mask, so
that blocks of keys which no query of a block sees are skipped; soft-capping is a change of the scores.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lmsys_ensemble.modeling.attention import AttentionRule
from lmsys_ensemble.modeling.packing import Packed, to_device

NOWHERE = -1
"""Number of the prefix of a token that has none."""


@cache
def compiled_attention() -> Callable[..., Any]:
    """Return FlexAttention as one kernel; without compilation it would make the whole matrix of scores."""
    return torch.compile(flex_attention, dynamic=True)


class FlexAttention:
    """Attention of a whole packed batch at once; see `lmsys_ensemble.modeling.attention.Attention`.

    Parameters
    ----------
    packed : Packed
        The batch.
    wanted : ndarray of int, optional
        Tokens whose output the last layer is asked for, ascending.
    run : callable, optional
        FlexAttention; by default compiled.
    """

    def __init__(self, packed: Packed, wanted: NDArray[np.intp] | None = None, run: Callable[..., Any] | None = None):
        self.run = run or compiled_attention()
        self.device = packed.tokens.device
        self.positions = packed.positions
        self.spans, self.prefixes = (to_device(values, self.device) for values in _numbers(packed))
        self.wanted = None if wanted is None else to_device(wanted, self.device)
        self._masks: dict[tuple[int | None, bool], BlockMask] = {}

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule, trimmed: bool) -> Tensor:
        """Return the attention's output."""
        known = (rule.window, trimmed)
        if known not in self._masks:  # layers of one kind share it
            self._masks[known] = self._mask(rule.window, trimmed)
        asked, keys, values = (part.transpose(0, 1)[None] for part in (query, key, value))
        output = self.run(
            asked,
            keys,
            values,
            score_mod=None if rule.softcap is None else soft_cap(rule.softcap),
            block_mask=self._masks[known],
            scale=rule.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        result: Tensor = output[0].transpose(0, 1)
        return result

    def _mask(self, window: int | None, trimmed: bool) -> BlockMask:
        spans, prefixes, positions = self.spans, self.prefixes, self.positions
        asking = (spans, prefixes, positions)
        if trimmed and self.wanted is not None:
            asking = (spans[self.wanted], prefixes[self.wanted], positions[self.wanted])
        asking_span, asking_prefix, asking_position = asking

        def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            same = (asking_span[query] == spans[key]) | (asking_prefix[query] == spans[key])
            back = asking_position[query] - positions[key]
            seen: Tensor = same & (back >= 0)
            return seen if window is None else seen & (back < window)

        mask: BlockMask = create_block_mask(sees, None, None, len(asking_span), len(spans), device=str(self.device))
        return mask


def _numbers(packed: Packed) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for every token the number of its span, and that of the span that is its prefix."""
    starts = {(span.start, span.stop): number for number, span in enumerate(packed.prefixes)}
    spans = np.empty(len(packed.tokens), dtype=np.int64)
    prefixes = np.full(len(packed.tokens), NOWHERE, dtype=np.int64)
    for number, span in enumerate(packed.spans):
        spans[span.start : span.stop] = number
        if span.n_before:
            prefixes[span.start : span.stop] = starts[span.prefix]
    return spans, prefixes


@cache
def soft_cap(softcap: float) -> Callable[..., Tensor]:
    """Return the change of scores that Gemma 2 makes: ``softcap * tanh(score / softcap)``."""

    def cap(score: Tensor, _batch: Tensor, _head: Tensor, _query: Tensor, _key: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap
