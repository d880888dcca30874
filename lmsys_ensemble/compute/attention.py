"""Causal attention over packed batches, one sequence at a time.

The path for CPUs and for GPUs below compute capability 8.0. Plain causal attention goes to PyTorch's fused kernels.
Soft-capping, sliding windows, shared prefixes and single queries go block by block over the queries, so that no matrix
of all tokens by all tokens is ever made and keys that a block cannot see are not looked at.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lmsys_ensemble.compute.packing import Packed, Span, to_device

QUERIES_PER_BLOCK = 256

Masks: TypeAlias = dict[tuple[bytes, int, int, int], Tensor | None]
"""Which keys the queries of a block see, by their places and the keys' range."""


@dataclass(frozen=True)
class AttentionRule:
    """What a layer's attention does with its scores.

    Parameters
    ----------
    scale : float
        Factor of the dot products.
    softcap : float or None
        Scores become ``softcap * tanh(score / softcap)`` (Gemma 2).
    window : int or None
        A token sees itself and the ``window - 1`` tokens before it.
    """

    scale: float
    softcap: float | None = None
    window: int | None = None


class Attention(Protocol):
    """Attention for one packed batch."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule, trimmed: bool) -> Tensor:
        """Return the attention's output for all tokens, or only for the wanted ones.

        Parameters
        ----------
        query : Tensor of shape (n_queries, n_heads, head_size)
            Of all tokens, or of the wanted ones.
        key, value : Tensor of shape (n_tokens, n_key_heads, head_size)
            Of all tokens.
        rule : AttentionRule
            Scale, soft-capping, window.
        trimmed : bool
            Whether the queries are those of the wanted tokens only.

        Returns
        -------
        Tensor of the shape of `query`
        """


@dataclass(frozen=True)
class _Queries:
    """The queries of one span: where they lie, and their places in the sequence."""

    span: Span
    start: int
    stop: int
    places: NDArray[np.intp]


class SequenceAttention:
    """Attention one sequence at a time; see `Attention`.

    Parameters
    ----------
    packed : Packed
        The batch.
    wanted : ndarray of int, optional
        Tokens whose output the last layer is asked for, ascending.
    """

    def __init__(self, packed: Packed, wanted: NDArray[np.intp] | None = None):
        self._all = [
            _Queries(span, span.start, span.stop, span.n_before + np.arange(span.stop - span.start))
            for span in packed.spans
        ]
        self._masks: Masks = {}  # layers of one kind and most sequences of a batch share them
        self._wanted = [] if wanted is None else list(_wanted_queries(packed.spans, wanted))

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule, trimmed: bool) -> Tensor:
        """Return the attention's output; see `Attention`."""
        if torch.is_grad_enabled() and query.requires_grad:
            return self._with_gradients(query, key, value, rule, trimmed)
        output = torch.empty_like(query)
        for queries in self._wanted if trimmed else self._all:
            output[queries.start : queries.stop] = self._of(queries, query, key, value, rule)
        return output

    def _with_gradients(self, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule, trimmed: bool) -> Tensor:
        """Put the parts together at the end: every part written into one tensor would copy all gradients once more."""
        every = sorted(self._wanted if trimmed else self._all, key=lambda queries: queries.start)
        return torch.cat([self._of(queries, query, key, value, rule) for queries in every])

    def _of(self, queries: _Queries, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule) -> Tensor:
        span, (first, last) = queries.span, queries.span.prefix
        keys, values = key[span.start : span.stop], value[span.start : span.stop]
        if span.n_before:
            keys, values = torch.cat([key[first:last], keys]), torch.cat([value[first:last], values])
        return attend(query[queries.start : queries.stop], keys, values, queries.places, rule, self._masks)


def _wanted_queries(spans: Sequence[Span], wanted: NDArray[np.intp]) -> Iterator[_Queries]:
    for span in spans:
        start, stop = np.searchsorted(wanted, [span.start, span.stop])
        if start < stop:
            yield _Queries(span, int(start), int(stop), span.n_before + wanted[start:stop] - span.start)


def attend(
    query: Tensor, key: Tensor, value: Tensor, places: NDArray[np.intp], rule: AttentionRule, masks: Masks
) -> Tensor:
    """Return causal attention's output for some tokens of one sequence.

    Parameters
    ----------
    query : Tensor of shape (n_queries, n_heads, head_size)
        Of the tokens at `places`.
    key, value : Tensor of shape (n_tokens, n_key_heads, head_size)
        Of the whole sequence.
    places : ndarray of shape (n_queries,)
        Places of the queries in the sequence, ascending.
    rule : AttentionRule
        Scale, soft-capping, window.
    masks : dict
        Masks that are there already; those that are made are added.
    """
    n_tokens = len(key)
    window = n_tokens if rule.window is None else min(rule.window, n_tokens)
    if rule.softcap is None and len(query) == n_tokens == window:
        return _fused(query, key, value, rule.scale, causal=True)
    output = torch.empty_like(query)
    for start in range(0, len(query), QUERIES_PER_BLOCK):
        block = places[start : start + QUERIES_PER_BLOCK]
        first, stop = max(int(block[0]) - window + 1, 0), int(block[-1]) + 1
        known = (block.tobytes(), first, stop, min(window, stop - first))
        if known not in masks:
            masks[known] = _seen(block, first, stop, window, key.device)
        part = query[start : start + QUERIES_PER_BLOCK], key[first:stop], value[first:stop]
        if rule.softcap is None:
            output[start : start + len(block)] = _fused(*part, rule.scale, seen=masks[known])
        else:
            output[start : start + len(block)] = _capped(*part, rule.scale, rule.softcap, masks[known])
    return output


def _seen(places: NDArray[np.intp], first: int, stop: int, window: int, device: torch.device) -> Tensor | None:
    """Return which keys from `first` to `stop` each query sees; None where it is all of them."""
    if len(places) == 1:
        return None
    back = places[:, None] - np.arange(first, stop)
    return to_device((back >= 0) & (back < window), device)


def _fused(
    query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool = False, seen: Tensor | None = None
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.device.type == "cuda":  # below compute capability 8.0 the fused kernels take no groups
        key, value = (part.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for part in (key, value))
        grouped = False
    asked, keys, values = (part.transpose(0, 1)[None] for part in (query, key, value))
    output = F.scaled_dot_product_attention(
        asked, keys, values, attn_mask=seen, is_causal=causal, scale=scale, enable_gqa=grouped
    )
    return output[0].transpose(0, 1)


def _capped(query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float, seen: Tensor | None) -> Tensor:
    """Soft-capped attention with scores in full; softmax in float32, as transformers has it."""
    n_queries, n_heads, size = query.shape
    n_groups = key.shape[1]
    asked = query.view(n_queries, n_groups, n_heads // n_groups, size).permute(1, 2, 0, 3)
    scores = torch.matmul(asked, key.permute(1, 2, 0)[:, None]).mul_(scale / softcap).tanh_()
    # The gradient of tanh is made of its result, which must stay where there is one.
    scores = scores * softcap if scores.requires_grad else scores.mul_(softcap)
    if seen is not None:
        scores.masked_fill_(~seen, float("-inf"))
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    output = torch.matmul(shares, value.transpose(0, 1)[:, None])
    return output.permute(2, 0, 1, 3).reshape(n_queries, n_heads, size)
