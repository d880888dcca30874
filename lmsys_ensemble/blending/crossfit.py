"""Predictions of a blender for rows that it was not fitted on, to measure it by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.evaluation.folds import group_codes, group_folds
from lmsys_ensemble.notices import collected_warnings
from lmsys_ensemble.probabilities import Probabilities


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Blenders that were each fitted on all folds but one.

    Attributes
    ----------
    blenders : tuple of Blender
        One per fold; only one where nothing had to be fitted.
    folds : ndarray of shape (n_rows,)
        Fold of every row: the position of the blender that has not seen it.
    """

    blenders: tuple[Blender, ...]
    folds: NDArray[np.intp]

    @property
    def is_fitted(self) -> bool:
        """Whether anything was learnt from labels."""
        return len(self.blenders) > 1

    def predict_proba(self, members: Sequence[ArrayLike]) -> Probabilities:
        """Blend the rows of `cross_fit_blender`, every row by the blender that has not seen it.

        Parameters
        ----------
        members : list of array-like of shape (n_rows, n_classes)
            One per scorer: the same rows in the same order, for example with the responses swapped.

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
        """
        arrays = [np.asarray(member, dtype=np.float64) for member in members]
        result = np.empty_like(arrays[0])
        for fold, blender in enumerate(self.blenders):
            held = self.folds == fold
            result[held] = blender.predict_proba([array[held] for array in arrays])
        return result


def cross_fit_blender(
    blender: Blender, members: Sequence[Probabilities], labels: Probabilities, groups: ArrayLike | None = None
) -> CrossFit:
    """Fit a blender of the same settings on every choice of all folds but one.

    With method ``auto`` the choice of the method is part of what is repeated, so that luck in choosing does not count.

    Parameters
    ----------
    blender : Blender
        Gives the settings, the number of folds and their seed; what it has learnt is not used.
    members : list of ndarray of shape (n_rows, n_classes)
        Probabilities, one array per scorer.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft labels.
    groups : array-like of shape (n_rows,), optional
        Rows of one group are never divided between folds.

    Returns
    -------
    CrossFit

    Raises
    ------
    InputError
        If there are fewer than two groups.
    """
    fresh: Blender = clone(blender)
    if fresh.__sklearn_is_fitted__():
        return CrossFit((fresh,), np.zeros(len(labels), dtype=np.intp))
    codes = group_codes(groups, len(labels))
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    folds = group_folds(codes, max(2, min(blender.n_folds, n_groups)), blender.seed)
    fitted = []
    with collected_warnings():  # what is wrong with a member is said once, by the fit on all rows
        for fold in range(int(folds.max()) + 1):
            seen = folds != fold
            one: Blender = clone(blender)
            fitted.append(one.fit([member[seen] for member in members], labels[seen], groups=codes[seen]))
    return CrossFit(tuple(fitted), folds)
