"""Pooling: from the hidden states of a sequence to the input of its head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmsys_ensemble.compute.packing import Packed, to_device
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
    """Gather one position per sequence: (n_rows, n_tokens, hidden_size) to (n_rows, hidden_size)."""
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
    sums, counts = [], []
    for name in (RESPONSE_A, RESPONSE_B):
        mask = (fields == FIELD_CODES[name]).to(torch.float32)
        counts.append(mask.sum(dim=1, keepdim=True))
        sums.append(torch.einsum("rth,rt->rh", hidden.float(), mask))
    return _compare(sums, counts, last.float())


def _compare(sums: Sequence[Tensor], counts: Sequence[Tensor], last: Tensor) -> Tensor:
    means = [total / count.clamp(min=1) for total, count in zip(sums, counts, strict=True)]
    logs = [torch.log1p(count) for count in counts]
    difference = logs[0] - logs[1]
    lengths = [difference, difference.abs(), (logs[0] + logs[1]) / 2]
    return torch.cat([means[0] - means[1], last, *lengths], dim=1)


@dataclass(frozen=True)
class PoolingPlan:
    """What a packed batch's pooling reads.

    Parameters
    ----------
    wanted : ndarray of int
        Tokens of the batch that are read, ascending.
    last : ndarray of shape (n_rows,)
        Place of every row's last token among the wanted ones.
    responses : list of (ndarray, ndarray)
        For ``response_spans``, of each response: places of its tokens among the wanted ones, row after row, and
        their number per row.
    """

    wanted: NDArray[np.intp]
    last: NDArray[np.intp]
    responses: list[tuple[NDArray[np.intp], NDArray[np.intp]]]


def plan_pooling(
    packed: Packed,
    ids: Sequence[NDArray[np.int32]],
    fields: Sequence[NDArray[np.int8]],
    pooling: Pooling,
    pad_token_id: int | None,
) -> PoolingPlan:
    """Find the tokens that pooling reads; parameters as in `pool`."""
    places = [span.where for span in packed.rows]
    positions = last_token_positions(ids, pad_token_id)
    last = np.array([where[position] for where, position in zip(places, positions, strict=True)], dtype=np.intp)
    if pooling == "last_token":
        wanted, index = np.unique(last, return_inverse=True)
        return PoolingPlan(wanted, index, [])
    owned = [
        [where[codes == FIELD_CODES[name]] for where, codes in zip(places, fields, strict=True)]
        for name in (RESPONSE_A, RESPONSE_B)
    ]
    wanted = np.unique(np.concatenate([last, *owned[0], *owned[1]]))
    responses = [
        (np.searchsorted(wanted, np.concatenate(parts)), np.array([len(part) for part in parts])) for parts in owned
    ]
    return PoolingPlan(wanted, np.searchsorted(wanted, last), responses)


def pool_packed(hidden: Tensor, plan: PoolingPlan) -> Tensor:
    """Pool a packed batch in float32; gives what `pool` does.

    Parameters
    ----------
    hidden : Tensor of shape (n_wanted, hidden_size)
        Hidden states of the wanted tokens.
    plan : PoolingPlan
        Which token belongs where.
    """
    hidden = hidden.float()
    last = hidden[to_device(plan.last, hidden.device)]
    if not plan.responses:
        return last
    sums, counts = [], []
    for places, n_tokens in plan.responses:
        lengths = to_device(n_tokens, hidden.device)
        owned = hidden[to_device(places, hidden.device)]
        # unsafe: not checked, for which the host would wait for the GPU; they add up by the way they are made
        sums.append(torch.segment_reduce(owned, "sum", lengths=lengths, axis=0, initial=0.0, unsafe=True))
        counts.append(lengths[:, None].float())
    return _compare(sums, counts, last)


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
