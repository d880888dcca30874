import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.modeling.pooling import (
    last_token_positions,
    pad_batch,
    pool,
    pool_response_spans,
    pooled_size,
)
from tests.tiny import EOS, PAD, encode, make_battles

PROMPT, A, B = 1, 2, 3


def transformers_positions(rows, pad_token_id):
    """Find the pooled position as `GenericForSequenceClassification.forward` does, on a padded batch."""
    tokens = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=pad_token_id
    )
    non_pad_mask = (tokens != pad_token_id).to(torch.int32)
    return (torch.arange(tokens.shape[1], dtype=torch.int32) * non_pad_mask).argmax(-1).numpy()


def pooled_by_loop(hidden, fields, last):
    """Pool responses one token at a time."""
    result = []
    for states, codes, end in zip(hidden.tolist(), fields.tolist(), last.tolist(), strict=True):
        means, counts = [], []
        for response in (A, B):
            chosen = [state for state, code in zip(states, codes, strict=True) if code == response]
            means.append([sum(values) / len(chosen) for values in zip(*chosen, strict=True)] or [0.0] * len(end))
            counts.append(math.log(1 + len(chosen)))
        difference = [left - right for left, right in zip(*means, strict=True)]
        gap = counts[0] - counts[1]
        result.append([*difference, *end, gap, abs(gap), sum(counts) / 2])
    return np.array(result)


@given(
    st.lists(st.lists(st.sampled_from([PAD, EOS, 5, 6]), min_size=1, max_size=8), min_size=1, max_size=5),
    st.sampled_from([PAD, EOS]),
)
def test_the_pooled_position_is_that_of_transformers(rows, pad_token_id):
    ids = [np.array(row, dtype=np.int32) for row in rows]
    assert last_token_positions(ids, pad_token_id).tolist() == transformers_positions(rows, pad_token_id).tolist()


def test_pad_equal_to_eos_pools_the_token_before_the_end():
    ids = [np.array([1, 7, 8, EOS], dtype=np.int32)]
    assert last_token_positions(ids, EOS).tolist() == [2]
    assert last_token_positions(ids, PAD).tolist() == [3]
    assert last_token_positions(ids, None).tolist() == [3]


def test_response_spans_equal_a_loop_over_tokens():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 9, 4, generator=generator)
    last = torch.randn(5, 4, generator=generator)
    fields = torch.randint(0, 4, (5, 9), generator=generator)
    fields[1][fields[1] == A] = PROMPT  # a response without tokens
    fields[2] = PROMPT  # neither has any
    pooled = pool_response_spans(hidden, fields, last)
    assert pooled.shape == (5, pooled_size("response_spans", 4))
    np.testing.assert_allclose(pooled.numpy(), pooled_by_loop(hidden, fields, last), atol=1e-6)


def test_swapping_the_responses_negates_what_tells_them_apart():
    hidden, last = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 3)
    fields = torch.tensor([[PROMPT, A, A, B, B, B], [A, B, B, 0, 0, 0]])
    swapped = torch.where(fields == A, B, torch.where(fields == B, A, fields))
    one, other = (pool_response_spans(hidden, codes, last) for codes in (fields, swapped))
    sign = torch.tensor([-1.0] * 3 + [1.0] * 3 + [-1.0, 1.0, 1.0])
    torch.testing.assert_close(other, one * sign)


@pytest.mark.parametrize("pooling", ["last_token", "response_spans"])
def test_padding_never_reaches_the_head(pooling):
    encoded = encode(make_battles(4))
    tokens, mask = pad_batch(encoded.ids, PAD, "cpu")
    assert mask is not None
    hidden = torch.randn(*tokens.shape, 4, generator=torch.Generator().manual_seed(2))
    spoilt = torch.where(mask[:, :, None] == 1, hidden, torch.full_like(hidden, 1e6))
    expected = pool(hidden, encoded.ids, encoded.fields, pooling, PAD)
    torch.testing.assert_close(pool(spoilt, encoded.ids, encoded.fields, pooling, PAD), expected)


def test_a_batch_is_padded_on_the_right_and_masked_only_where_needed():
    values, mask = pad_batch([np.array([5, 6, 7]), np.array([8])], 9, "cpu")
    assert values.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert pad_batch([np.array([5, 6]), np.array([8, 9])], 0, "cpu")[1] is None
