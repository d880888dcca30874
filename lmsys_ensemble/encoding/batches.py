"""Batches by token budget, longest first, and the way back to the order of the rows."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.errors import ConfigError, EnsembleError


def plan_batches(lengths: Sequence[int] | NDArray[np.intp], tokens_per_batch: int) -> list[NDArray[np.intp]]:
    """Group rows of similar length, so that a padded batch holds at most `tokens_per_batch` tokens.

    Longest rows come first: what does not fit in memory fails at once, not in the last hour. A row longer than the
    budget is a batch of its own.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of every row.
    tokens_per_batch : int
        Rows times longest row of a batch, padding included.

    Returns
    -------
    list of ndarray
        Row positions of every batch; each row is in exactly one.
    """
    _check_budget(tokens_per_batch)
    order = np.argsort(-np.asarray(lengths, dtype=np.intp), kind="stable")
    batches = []
    start = 0
    while start < len(order):
        n_rows = max(tokens_per_batch // max(int(lengths[order[start]]), 1), 1)
        batches.append(order[start : start + n_rows])
        start += n_rows
    return batches


def pack_batches(costs: Sequence[int] | NDArray[np.intp], tokens_per_batch: int) -> list[NDArray[np.intp]]:
    """Fill batches without padding: the longest first, each filled up with the longest that still fit.

    Parameters
    ----------
    costs : sequence of int
        Tokens of every sequence (or of every group of sequences that must stay together).
    tokens_per_batch : int
        Most tokens of a batch; what is longer is a batch of its own.

    Returns
    -------
    list of ndarray
        Positions of every batch; each position is in exactly one.
    """
    _check_budget(tokens_per_batch)
    values = np.asarray(costs, dtype=np.intp)
    order = np.argsort(values, kind="stable")
    left = list(zip(values[order].tolist(), order.tolist(), strict=True))  # shortest first: the longest is at the end
    batches = []
    while left:
        cost, position = left.pop()
        batch, room = [position], tokens_per_batch - cost
        while left and left[0][0] <= room:
            cost, position = left.pop(bisect_left(left, (room + 1, -1)) - 1)
            batch.append(position)
            room -= cost
        batches.append(np.array(batch, dtype=np.intp))
    return batches


def _check_budget(tokens_per_batch: int) -> None:
    if tokens_per_batch < 1:
        raise ConfigError(f"tokens_per_batch must be at least 1, got {tokens_per_batch}")


def restore_order(
    parts: Sequence[NDArray[np.float32]], batches: Sequence[NDArray[np.intp]], n_rows: int
) -> NDArray[np.float32]:
    """Put results of batches back into the order of the rows.

    Parameters
    ----------
    parts : sequence of ndarray of shape (rows of the batch, n_classes)
        One result per batch.
    batches : sequence of ndarray
        Row positions of every batch.
    n_rows : int
        Number of rows in all.

    Returns
    -------
    ndarray of shape (n_rows, n_classes)

    Raises
    ------
    EnsembleError
        If the batches are no permutation of the rows, or results are missing; this is a defect of the library.
    """
    order = np.concatenate(batches) if len(batches) else np.empty(0, dtype=np.intp)
    if not np.array_equal(np.sort(order), np.arange(n_rows)):
        raise EnsembleError(f"internal error: {len(order)} results for {n_rows} rows are no permutation of them")
    if not parts or [len(part) for part in parts] != [len(batch) for batch in batches]:
        raise EnsembleError("internal error: no results, or not one for every row of every batch")
    result = np.empty((n_rows, *parts[0].shape[1:]), dtype=np.float32)
    result[order] = np.concatenate(parts)
    return result
