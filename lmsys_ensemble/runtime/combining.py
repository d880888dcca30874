"""Blending rows of which some scorers are missing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.blending.blender import Blender, BlenderNotFittedError
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import Probabilities


def blend_rows(blender: Blender, members: Sequence[Probabilities], present: NDArray[np.bool_]) -> Probabilities:
    """Blend what there is of every row.

    A row that lacks scorers gets the blend of the others, their weights scaled up; where those have no weight, their
    average. A row that lacks all gets the mean of the other rows' blends, or equal probabilities if there are none.

    Parameters
    ----------
    blender : Blender
        Ready to predict.
    members : sequence of ndarray of shape (n_rows, n_classes)
        One a scorer.
    present : ndarray of shape (n_rows, n_scorers)
        Which of them are to be used.

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
        Every row sums to 1.
    """
    if present.all():
        return blender.predict_proba(list(members))
    blended: Probabilities = np.full((len(present), members[0].shape[1]), np.nan)
    patterns, pattern_of = np.unique(present, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(pattern_of.reshape(-1) == number)
        if pattern.any():
            parts = [member[rows] if there else None for member, there in zip(members, pattern, strict=True)]
            blended[rows] = _blend(blender, parts)
    nothing = ~present.any(axis=1)
    blended[nothing] = 1 / blended.shape[1] if nothing.all() else blended[~nothing].mean(axis=0)
    return blended


def ready_or_average(blender: Blender | None, n_scorers: int, n_classes: int) -> Blender:
    """Return the blender, or the average where it has yet to learn: good enough to tell which rows are close."""
    if blender is None:
        return Blender()
    try:
        check_ready(blender, n_scorers, n_classes)
    except BlenderNotFittedError:
        return Blender()
    return blender


def check_ready(blender: Blender, n_scorers: int, n_classes: int) -> None:
    """Raise what `Blender.predict_proba` would raise for that many scorers, before hours are spent on them."""
    blender.predict_proba([np.full((1, n_classes), 1 / n_classes)] * n_scorers)


def weights_of(blender: Blender, n_scorers: int) -> list[float]:
    """Return what every scorer counts for, fitted or given, or the same for all."""
    weights = getattr(blender, "weights_", None)
    if weights is None:
        weights = blender.weights
    if weights is None or np.size(weights) != n_scorers:
        return [1.0] * n_scorers
    return [float(weight) for weight in np.ravel(weights)]


def _blend(blender: Blender, parts: list[Probabilities | None]) -> Probabilities:
    try:
        # The run says it, once for all rows. Filters for warnings are a process's, and this may run in any thread.
        return blender.predict_proba(parts, missing="silent")
    except InputError:  # those that remain have no weight
        average: Probabilities = np.mean([part for part in parts if part is not None], axis=0)
        return average
