"""The blender in a run: whether it belongs to the scorers, and blending rows that miss some of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.blending.blender import Blender, BlenderNotFittedError
from lmsys_ensemble.blending.members import order_of
from lmsys_ensemble.errors import EnsembleError, InputError
from lmsys_ensemble.journal.fingerprints import canonical_json, differences
from lmsys_ensemble.notices import warn
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.scorers.base import Scorer


class MemberChangedWarning(UserWarning):
    """A scorer is not the one that the blender was fitted on, though its name is the same."""


# --- whether it belongs to the scorers ------------------------------------------------------------------------------


def check_membership(blender: Blender, scorers: Sequence[Scorer]) -> None:
    """Refuse a blender that was fitted on scorers of other names.

    Raises
    ------
    ConfigError
        Names those that are missing and those that are unknown.
    """
    known = getattr(blender, "member_names_", None)
    if known is not None:
        order_of(known, [scorer.name for scorer in scorers])


def check_ready(blender: Blender, n_scorers: int, n_classes: int) -> None:
    """Raise what `Blender.predict_proba` would raise for that many scorers, before hours are spent on them."""
    blender.predict_proba([np.full((1, n_classes), 1 / n_classes)] * n_scorers)


def blender_of(blender: Blender, scorers: Sequence[Scorer]) -> Blender:
    """Return the blender with its weights in the order of the scorers.

    Warns with `MemberChangedWarning` where a scorer has changed since the fit, and with
    `MemberOrderWarning` where the blender was fitted without names.

    Raises
    ------
    ConfigError
        If it was fitted on scorers of other names.
    """
    ordered = blender.in_order_of([scorer.name for scorer in scorers])
    known: dict[str, Any] = getattr(blender, "fingerprints_", {})
    now = fingerprints_of([scorer for scorer in scorers if scorer.name in known])
    changes = [
        change
        for name, fingerprint in now.items()
        for change in differences(name, canonical_json(name, known[name]), canonical_json(name, fingerprint))
    ]
    if changes:
        warn(
            f"the scorers have changed since the blender was fitted: {'; '.join(changes)}. Fit it again if that "
            "changes what they predict",
            MemberChangedWarning,
        )
    return ordered


def blender_if_known(blender: Blender, scorers: Sequence[Scorer]) -> Blender | None:
    """Return what `blender_of` does, without warnings, or None where the blender belongs to other scorers.

    For runs that do not blend: there the blender only says which rows are close and what each scorer counts for.
    """
    known, names = getattr(blender, "member_names_", None), [scorer.name for scorer in scorers]
    if known is None:
        return blender
    return blender.in_order_of(names) if sorted(known) == sorted(names) else None


def ready_or_average(blender: Blender | None, n_scorers: int, n_classes: int) -> Blender:
    """Return the blender, or the average where it is yet to be fitted: good enough to tell which rows are close."""
    if blender is None:
        return Blender()
    try:
        check_ready(blender, n_scorers, n_classes)
    except BlenderNotFittedError:
        return Blender()
    return blender


def weights_of(blender: Blender, n_scorers: int) -> list[float]:
    """Return the weight of each scorer, fitted or given, or the same for all."""
    weights = getattr(blender, "weights_", None)
    if weights is None:
        weights = blender.weights
    if weights is None or np.size(weights) != n_scorers:
        return [1.0] * n_scorers
    return [float(weight) for weight in np.ravel(weights)]


def fingerprints_of(scorers: Sequence[Scorer]) -> dict[str, Any]:
    """Return the fingerprints of scorers that read texts, by name.

    Scorers that look probabilities up by id are left out: the rows that are predicted always come from another file
    than the rows that were fitted on. A scorer whose fingerprint cannot be taken is left out, too; its run says why.
    """
    found = {}
    for scorer in scorers:
        if not scorer.reads_texts:
            continue
        try:
            fingerprint = scorer.fingerprint()
            canonical_json(scorer.name, fingerprint)
        except EnsembleError:
            continue
        found[scorer.name] = fingerprint
    return found


# --- blending -------------------------------------------------------------------------------------------------------


def blend_rows(blender: Blender, members: Sequence[Probabilities], present: NDArray[np.bool_]) -> Probabilities:
    """Blend the scorers that each row has.

    A row that misses scorers gets the blend of the others, their weights scaled up; where those have no weight, their
    average. A row that misses all gets the mean of the other rows' blends, or equal probabilities if there are none.

    Parameters
    ----------
    blender : Blender
        Ready to predict.
    members : sequence of ndarray of shape (n_rows, n_classes)
        Probabilities per scorer.
    present : ndarray of bool of shape (n_rows, n_scorers)
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


def _blend(blender: Blender, parts: list[Probabilities | None]) -> Probabilities:
    try:
        # The run warns once for all rows. Filters for warnings belong to the process, and this may run in any thread.
        return blender.predict_proba(parts, missing="silent")
    except InputError:  # those that remain have no weight
        average: Probabilities = np.mean([part for part in parts if part is not None], axis=0)
        return average
