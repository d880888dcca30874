"""Splits that never divide a group: rows that share a prompt stay on one side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit

from lmsys_ensemble.errors import InputError


def holdout_split(
    groups: Sequence[object], share: float, seed: int = 0
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
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
    if not 0 < share < 1 or n_groups < 2:
        raise InputError(f"cannot hold out a share of {share} of {n_groups} groups; need 0 < share < 1 and two groups")
    splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    learn, hold = next(splitter.split(codes, groups=codes))
    return np.sort(learn), np.sort(hold)
