"""Causal attention over packed batches in one kernel: PyTorch's FlexAttention.

The path for GPUs from compute capability 8.0 on. Documents, shared prefixes and sliding windows are a block mask, so
that blocks of keys which no query of a block sees are skipped; soft-capping is a change of the scores.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lmsys_ensemble.modeling.attention import AttentionRule, SequenceAttention
from lmsys_ensemble.modeling.packing import Packed, to_device

logger = logging.getLogger(__name__)

NOWHERE, PADDING = -1, -2
"""Number of the prefix of a token that has none, and of the span and prefix of padding, which sees only itself."""


LEAST_STEP = 2048
"""Sizes are rounded up to a multiple of this, or of an eighth of the next power of two: a kernel is made for each."""

MOST_KERNELS = 64


@cache
def compiled_attention() -> Callable[..., Any]:
    """Return FlexAttention as one kernel; without compilation it would make the whole matrix of scores."""
    limit = max(torch._dynamo.config.recompile_limit, MOST_KERNELS)  # beyond it, calls would go uncompiled
    torch._dynamo.config.recompile_limit = limit
    return torch.compile(flex_attention, dynamic=False)


def rounded_up(n_tokens: int) -> int:
    """Return the size for which a kernel is made: few sizes serve all batches, and at most an eighth is wasted."""
    step = max(LEAST_STEP, (1 << (n_tokens - 1).bit_length()) // 8)
    return -(-n_tokens // step) * step


class FlexAttention:
    """Attention of a whole packed batch at once; see `lmsys_ensemble.modeling.attention.Attention`.

    The few queries of a trimmed layer, and everything once compilation has failed in this process, go by sequence.

    Parameters
    ----------
    packed : Packed
        The batch.
    wanted : ndarray of int, optional
        Tokens whose output the last layer is asked for, ascending.
    run : callable, optional
        FlexAttention; by default compiled.
    """

    compiles: ClassVar[bool] = True

    def __init__(self, packed: Packed, wanted: NDArray[np.intp] | None = None, run: Callable[..., Any] | None = None):
        self.run = run or compiled_attention()
        self.device = packed.tokens.device
        self.n_tokens = len(packed.tokens)
        self.n_padding = rounded_up(self.n_tokens) - self.n_tokens
        self.by_sequence = SequenceAttention(packed, wanted)
        padded = (np.pad(numbers, (0, self.n_padding), constant_values=PADDING) for numbers in _numbers(packed))
        self.spans, self.prefixes = (to_device(numbers, self.device) for numbers in padded)
        self.positions = F.pad(packed.positions, (0, self.n_padding))
        self._masks: dict[int | None, BlockMask] = {}

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule, trimmed: bool) -> Tensor:
        """Return the attention's output; see `Attention`."""
        if trimmed or not FlexAttention.compiles:
            return self.by_sequence(query, key, value, rule, trimmed)
        try:
            return self._at_once(query, key, value, rule)
        except TorchDynamoException as error:
            FlexAttention.compiles = False
            logger.warning(
                "FlexAttention cannot be compiled here; attention goes one sequence at a time, which is slower: %s",
                str(error).strip().splitlines()[0],
            )
            return self.by_sequence(query, key, value, rule, trimmed)

    def _at_once(self, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule) -> Tensor:
        if rule.window not in self._masks:  # layers of one kind share it
            self._masks[rule.window] = self._mask(rule.window)
        asked, keys, values = (
            F.pad(part, (0, 0, 0, 0, 0, self.n_padding)).transpose(0, 1)[None] for part in (query, key, value)
        )
        output = self.run(
            asked,
            keys,
            values,
            score_mod=None if rule.softcap is None else soft_cap(rule.softcap),
            block_mask=self._masks[rule.window],
            scale=rule.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        result: Tensor = output[0].transpose(0, 1)[: self.n_tokens]
        return result

    def _mask(self, window: int | None) -> BlockMask:
        spans, prefixes, positions = self.spans, self.prefixes, self.positions

        def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            back = positions[query] - positions[key]
            seen: Tensor = ((spans[query] == spans[key]) | (prefixes[query] == spans[key])) & (back >= 0)
            return seen if window is None else seen & (back < window)

        mask: BlockMask = create_block_mask(sees, None, None, len(spans), len(spans), device=str(self.device))
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
