"""Whether a blender belongs to the scorers: by their names, and by what was known about them when it was fitted."""

import warnings
from collections.abc import Sequence
from typing import Any

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.blending.members import order_of
from lmsys_ensemble.errors import EnsembleError
from lmsys_ensemble.journal.fingerprints import canonical_json, differences
from lmsys_ensemble.scorers.base import Scorer


class MemberChangedWarning(UserWarning):
    """A scorer is not the one that the blender was fitted on, though its name is the same."""


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


def blender_of(blender: Blender, scorers: Sequence[Scorer]) -> Blender:
    """Return the blender with its weights in the order of the scorers.

    Warns with `MemberChangedWarning` where a scorer has changed since the fit, and with
    `lmsys_ensemble.blending.members.MemberOrderWarning` where the blender was fitted without names.

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
        warnings.warn(
            f"the scorers have changed since the blender was fitted: {'; '.join(changes)}. Fit it again if that "
            "changes what they predict",
            MemberChangedWarning, stacklevel=2,
        )  # fmt: skip
    return ordered


def blender_if_known(blender: Blender, scorers: Sequence[Scorer]) -> Blender | None:
    """Return what `blender_of` does without a word, and None where the blender belongs to other scorers.

    For runs that do not blend: there it only says which rows are close and what scorers count for.
    """
    known, names = getattr(blender, "member_names_", None), [scorer.name for scorer in scorers]
    if known is None:
        return blender
    return blender.in_order_of(names) if sorted(known) == sorted(names) else None


def fingerprints_of(scorers: Sequence[Scorer]) -> dict[str, Any]:
    """Return the fingerprints of scorers that read texts, by name.

    Those that look probabilities up by id are left out: the file of the rows that are fitted on is never that of the
    rows that are predicted. So is a scorer whose fingerprint cannot be taken; what is wrong with it is said by its run.
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
