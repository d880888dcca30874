"""Block lists made from the spans are those that PyTorch makes from the whole matrix."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils._python_dispatch import TorchDispatchMode

from lmsys_ensemble.compute.block_mask import BLOCK, count_seen, find_key_runs, make_block_mask
from lmsys_ensemble.compute.kernels import rounded_up
from lmsys_ensemble.compute.packing import Packed, Span, pack
from lmsys_ensemble.encoding.prefixes import find_families

WINDOWS = st.sampled_from([None, 1, 2, 63, 128, 129, 300, 10_000])


def packed_rows(lengths, n_shared=()):
    """Pack rows of random ids, the first of which begin alike."""
    generator = np.random.default_rng(len(lengths))
    ids = [generator.integers(100, 9999, length).astype(np.int32) for length in lengths]
    beginning = generator.integers(5, 99, max(n_shared, default=0)).astype(np.int32)
    for row, length in enumerate(n_shared):
        ids[row] = np.concatenate([beginning[:length], ids[row]])
    return pack(ids, find_families(ids, [np.zeros(len(row), dtype=np.int8) for row in ids], 10**9), "cpu")


@st.composite
def batches(draw):
    """Batches with and without shared prefixes, and their sizes with padding."""
    lengths = draw(st.lists(st.integers(1, 400), min_size=1, max_size=7))
    n_shared = draw(st.lists(st.integers(32, 500), max_size=len(lengths)))
    packed = packed_rows(lengths, n_shared)
    n_blocks = -(-len(packed.tokens) // BLOCK) + draw(st.integers(0, 2))
    return packed, n_blocks * BLOCK


def seen_pairs(packed: Packed, size: int, window: int | None) -> torch.Tensor:
    """Return which token sees which, by the definition: from the sequences, one token at a time."""
    seen = torch.eye(size, dtype=torch.bool)
    for span in packed.spans:
        where = span.where
        for place in range(span.n_before, len(where)):
            first = 0 if window is None else max(0, place - window + 1)
            seen[where[place], where[first : place + 1]] = True
    return seen


def listed(numbers, indices):
    """Return block lists as a matrix."""
    result = np.zeros(indices.shape[2:], dtype=bool)
    for row, number in enumerate(numbers[0, 0].tolist()):
        result[row, indices[0, 0, row, :number].numpy()] = True
    return result


@settings(max_examples=60, deadline=None)
@given(batch=batches(), window=WINDOWS)
def test_block_lists_and_masks_are_those_of_the_whole_matrix(batch, window):
    packed, size = batch
    seen = seen_pairs(packed, size, window)
    expected = create_block_mask(lambda b, h, q, k: seen[q, k], None, None, size, size, device="cpu")
    got = make_block_mask(find_key_runs(packed.spans, size, window), "cpu")
    for part in ("kv", "full_kv"):
        lists = [(getattr(mask, f"{part}_num_blocks"), getattr(mask, f"{part}_indices")) for mask in (got, expected)]
        assert all(one.dtype == other.dtype and one.shape == other.shape for one, other in zip(*lists, strict=True))
        assert np.array_equal(listed(*lists[0]), listed(*lists[1]))
    places = torch.arange(size)
    assert torch.equal(got.mask_mod(None, None, places[:, None], places[None]), seen)
    assert got.shape == expected.shape
    assert got.BLOCK_SIZE == expected.BLOCK_SIZE


@settings(max_examples=30, deadline=None)
@given(batch=batches(), window=WINDOWS)
def test_pairs_are_counted_by_blocks(batch, window):
    packed, size = batch
    blocks = seen_pairs(packed, size, window).view(size // BLOCK, BLOCK, -1, BLOCK)
    assert np.array_equal(count_seen(find_key_runs(packed.spans, size, window)), blocks.sum((1, 3)).numpy())


@pytest.mark.parametrize("window", [None, 4096])
def test_no_matrix_of_tokens_by_tokens_is_made(window):
    n_tokens = 65_000
    rows = [Span(start, start + 1000, (0, 30_000)) for start in range(30_000, n_tokens, 1000)]
    size = rounded_up(n_tokens)
    largest = LargestTensor()
    tracemalloc.start()
    with largest:
        mask = make_block_mask(find_key_runs([Span(0, 30_000), *rows], size, window), "cpu")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert mask.shape[-2:] == (size, size)
    assert largest.n_values <= max(size, (size // BLOCK) ** 2)
    assert peak < 1000 * size, "bytes of the host"


class LargestTensor(TorchDispatchMode):
    """Remembers how many values the largest tensor has that an operation gives."""

    n_values = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor):
            self.n_values = max(self.n_values, result.numel())
        return result


def test_padding_sees_itself_and_costs_no_whole_blocks():
    packed = packed_rows([100])
    mask = make_block_mask(find_key_runs(packed.spans, 4 * BLOCK), "cpu")
    assert mask.kv_num_blocks.flatten().tolist() == [1, 1, 1, 1]
    assert not mask.full_kv_num_blocks.any()
    places = torch.arange(100, 4 * BLOCK)
    assert torch.equal(mask.mask_mod(None, None, places[:, None], places[None]), torch.eye(len(places)).bool())
