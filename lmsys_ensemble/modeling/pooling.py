"""Pooling: from the hidden states of a sequence to the input of its head."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmsys_ensemble.encoding.tokens import FIELD_CODES, LITERAL
from lmsys_ensemble.schema import RESPONSE_A, RESPONSE_B

SPAN_FEATURES = 2
"""Hidden sizes that `response_spans` gives to the head."""


def last_token_positions(ids: Sequence[NDArray[np.int32]], pad_token_id: int | None) -> NDArray[np.intp]:
    """Return the position that transformers pools: the rightmost token that is not `pad_token_id`.

    Where a model's padding token is its end token, that is the token before the end token; it must be scored as it
    was trained. A sequence of nothing but padding gives position 0, as in transformers.
    """
    positions = np.empty(len(ids), dtype=np.intp)
    for row, sequence in enumerate(ids):
        kept = np.flatnonzero(sequence != pad_token_id) if pad_token_id is not None else [len(sequence) - 1]
        positions[row] = kept[-1] if len(kept) else 0
    return positions


def pool_last_token(hidden: Tensor, positions: Tensor) -> Tensor:
    """Gather one position a sequence: (n_rows, n_tokens, hidden_size) to (n_rows, hidden_size)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), positions]


def pool_response_spans(hidden: Tensor, fields: Tensor) -> Tensor:
    """Pool the mean hidden states of the two responses' tokens.

    Parameters
    ----------
    hidden : Tensor of shape (n_rows, n_tokens, hidden_size)
        Hidden states.
    fields : Tensor of shape (n_rows, n_tokens)
        Where each token came from, see `lmsys_ensemble.encoding.tokens.FIELD_CODES`.

    Returns
    -------
    Tensor of shape (n_rows, 2 * hidden_size), float32
        Mean of response A minus mean of response B, which changes its sign when the responses change places, and
        the mean of both, which does not. A response without tokens counts as zero.
    """
    means = []
    for name in (RESPONSE_A, RESPONSE_B):
        mask = (fields == FIELD_CODES[name]).to(torch.float32)
        total = torch.einsum("rth,rt->rh", hidden.float(), mask)
        means.append(total / mask.sum(dim=1, keepdim=True).clamp(min=1))
    return torch.cat([means[0] - means[1], (means[0] + means[1]) / 2], dim=1)


def pad_batch(
    rows: Sequence[NDArray[np.integer]], fill: int, device: str | torch.device
) -> tuple[Tensor, Tensor | None]:
    """Right-pad rows to one tensor.

    Returns
    -------
    values : Tensor of shape (n_rows, longest), int64
        Rows filled up with `fill`.
    attention_mask : Tensor of the same shape, or None
        1 for real tokens; None where no row is shorter than another.
    """
    lengths = np.array([len(row) for row in rows])
    values = np.full((len(rows), lengths.max()), fill, dtype=np.int64)
    for row, sequence in enumerate(rows):
        values[row, : len(sequence)] = sequence
    mask = None
    if lengths.min() < lengths.max():
        mask = torch.from_numpy((np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)).to(device)
    return torch.from_numpy(values).to(device), mask


FILL_FIELD = LITERAL
"""Field code of padding: it belongs to no response."""
