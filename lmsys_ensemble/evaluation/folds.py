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
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    if not 2 <= n_folds <= n_groups:
        raise InputError(f"cannot deal {n_groups} groups into {n_folds} folds; need 2 <= n_folds <= n_groups")
    deal = np.random.default_rng(seed).permutation(n_groups) % n_folds
    return deal.astype(np.intp)[codes]
