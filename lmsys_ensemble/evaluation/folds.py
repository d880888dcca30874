"""Splits that never divide a group: rows that share a prompt stay on one side."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GroupShuffleSplit

from lmsys_ensemble.errors import InputError


def holdout_split(groups: Sequence[object], share: float, seed: int = 0) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Divide rows into a part to learn from and a part to measure on, by group.

    Parameters
    ----------
    groups : sequence of length n_rows
        Group of every row.
    share : float
        Share of the groups that is held out, above 0 and below 1.
    seed : int
        Seed of the shuffle.

    Returns
    -------
    tuple of ndarray
        Sorted row positions of the learning part and of the held-out part.

    Raises
    ------
    InputError
        If there are fewer than two groups, or `share` leaves one side empty.
    """
    codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    if not 0 < share < 1 or math.ceil(share * n_groups) >= n_groups:
        raise InputError(
            f"cannot hold out a share of {share} of {n_groups} groups; need 0 < share < 1 and a group on each side"
        )
    splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    learn, hold = next(splitter.split(codes, groups=codes))
    return np.sort(learn), np.sort(hold)


def group_codes(groups: ArrayLike | None, n_rows: int) -> NDArray[np.intp]:
    """Give the groups the numbers 0, 1, ... in the order of their first rows.

    Parameters
    ----------
    groups : array-like of shape (n_rows,), optional
        Group of every row; without it every row is a group of its own.
    n_rows : int
        Expected number of rows.

    Returns
    -------
    ndarray of shape (n_rows,)

    Raises
    ------
    InputError
        If the length is wrong or a group is missing (None, NaN).
    """
    if groups is None:
        return np.arange(n_rows)
    values = pd.Series(np.asarray(groups, dtype=object).tolist(), dtype=object)
    if len(values) != n_rows:
        raise InputError(f"groups has {len(values)} entries for {n_rows} rows; give one per row")
    if values.isna().any():
        first = int(np.flatnonzero(values.isna())[0])
        raise InputError(
            f"groups: {int(values.isna().sum())} of {n_rows} are missing, first in row {first}; give every row one"
        )
    return pd.factorize(values)[0].astype(np.intp)


def group_folds(codes: NDArray[np.intp], n_folds: int, seed: int = 0) -> NDArray[np.intp]:
    """Deal groups at random into folds of nearly equal numbers of groups.

    Parameters
    ----------
    codes : ndarray of shape (n_rows,)
        Numbers of the groups, from `group_codes`.
    n_folds, seed : int
        Number of folds, at least 2, and seed of the shuffle.

    Returns
    -------
    ndarray of shape (n_rows,)
        Fold of every row, 0 to ``n_folds - 1``.

    Raises
    ------
    InputError
        If there are fewer groups than folds, or fewer than two folds.
    """
    n_groups = _check_folds(codes, n_folds)
    deal = np.random.default_rng(seed).permutation(n_groups) % n_folds
    return deal.astype(np.intp)[codes]


def make_folds(
    groups: ArrayLike | None, n_splits: int, seed: int = 0, labels: NDArray[np.float64] | None = None
) -> NDArray[np.intp]:
    """Deal groups into folds of nearly equal numbers of rows and nearly equal label balance.

    The largest groups go first, groups of one size in random order, each to the fold that has the smallest share of
    all rows and of the classes that the group holds. scikit-learn's ``StratifiedGroupKFold`` takes no soft labels and
    may leave a fold empty.

    Parameters
    ----------
    groups : array-like of shape (n_rows,), optional
        Group of every row; without it every row of `labels` is a group of its own.
    n_splits, seed : int
        Number of folds, at least 2, and seed of the order.
    labels : ndarray of shape (n_rows, n_classes), optional
        One-hot or soft.

    Returns
    -------
    ndarray of shape (n_rows,)
        Fold of every row, 0 to ``n_splits - 1``; none is empty, and rows of one group are in one fold.

    Raises
    ------
    InputError
        If there are fewer groups than folds or fewer than two folds, a group is missing, or lengths differ.

    Examples
    --------
    >>> make_folds(["a", "b", "a", "c"], n_splits=2).tolist()
    [0, 1, 0, 1]
    """
    if groups is None and labels is None:
        raise InputError("folds need groups or labels, got neither")
    n_rows = len(labels) if labels is not None else len(np.asarray(groups, dtype=object))
    codes = group_codes(groups, n_rows)
    n_groups = _check_folds(codes, n_splits)
    contents = np.zeros((n_groups, 1 + (labels.shape[1] if labels is not None else 0)))
    np.add.at(contents, codes, np.column_stack([np.ones(n_rows), *(() if labels is None else [labels])]))
    order = np.random.default_rng(seed).permutation(n_groups)
    order = order[np.argsort(-contents[order, 0], kind="stable")]
    weights = contents / np.maximum(contents.sum(axis=0), 1)  # what is rare counts as much as what is frequent
    filled = np.zeros((n_splits, contents.shape[1]))
    fold_of = np.empty(n_groups, dtype=np.intp)
    for group in order:
        fold_of[group] = np.argmin(filled @ weights[group])  # 0 only where a fold is empty
        filled[fold_of[group]] += contents[group]
    return fold_of[codes]


def _check_folds(codes: NDArray[np.intp], n_folds: int) -> int:
    """Return the number of groups; raise `InputError` if they cannot fill the folds."""
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    if not 2 <= n_folds <= n_groups:
        raise InputError(
            f"cannot deal {n_groups} groups into {n_folds} folds; need 2 <= n_folds <= n_groups. Rows that share a "
            "prompt are one group: ask for fewer folds, or give more prompts"
        )
    return n_groups
