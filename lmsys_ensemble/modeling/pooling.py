"""Pooling: from the hidden states of a sequence to the input of its head."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmsys_ensemble.encoding.retention import FIELD_CODES, LITERAL
from lmsys_ensemble.modeling.recipe import Pooling
from lmsys_ensemble.schema import RESPONSE_A, RESPONSE_B

N_LENGTH_FEATURES = 3


def pooled_size(pooling: Pooling, hidden_size: int) -> int:
    """Return the number of values that `pooling` gives to the head."""
    return 2 * hidden_size + N_LENGTH_FEATURES if pooling == "response_spans" else hidden_size


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


def pool_response_spans(hidden: Tensor, fields: Tensor, last: Tensor) -> Tensor:
    """Pool what tells two responses apart.

    Parameters
    ----------
    hidden : Tensor of shape (n_rows, n_tokens, hidden_size)
        Hidden states.
    fields : Tensor of shape (n_rows, n_tokens)
        Where each token came from, see `lmsys_ensemble.encoding.retention.FIELD_CODES`.
    last : Tensor of shape (n_rows, hidden_size)
        Hidden state of the last token.

    Returns
    -------
    Tensor of shape (n_rows, 2 * hidden_size + 3), float32
        Mean hidden state of response A's tokens minus that of response B's (a response without tokens counts as
        zero); the last token's hidden state; and of the logarithms of one plus the responses' tokens (after
        truncation) the difference, its absolute value and the mean.
    """
    means, logs = [], []
    for name in (RESPONSE_A, RESPONSE_B):
        mask = (fields == FIELD_CODES[name]).to(torch.float32)
        count = mask.sum(dim=1, keepdim=True)
        means.append(torch.einsum("rth,rt->rh", hidden.float(), mask) / count.clamp(min=1))
        logs.append(torch.log1p(count))
    difference = logs[0] - logs[1]
    lengths = [difference, difference.abs(), (logs[0] + logs[1]) / 2]
    return torch.cat([means[0] - means[1], last.float(), *lengths], dim=1)


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


def pool(
    hidden: Tensor,
    ids: Sequence[NDArray[np.int32]],
    fields: Sequence[NDArray[np.int8]],
    pooling: Pooling,
    pad_token_id: int | None,
) -> Tensor:
    """Pool a batch as the recipe says, in float32.

    Parameters
    ----------
    hidden : Tensor of shape (n_rows, n_tokens, hidden_size)
        Hidden states of the padded batch.
    ids, fields : sequence of ndarray
        Token ids and field codes of every row, without padding.
    pooling : {"last_token", "response_spans"}
        What the head is given.
    pad_token_id : int or None
        Token that ``last_token`` takes for padding.
    """
    positions = torch.from_numpy(last_token_positions(ids, pad_token_id)).to(hidden.device)
    last = pool_last_token(hidden, positions).float()
    if pooling == "last_token":
        return last
    return pool_response_spans(hidden, pad_batch(fields, LITERAL, hidden.device)[0], last)
