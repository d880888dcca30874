"""Settings and fingerprint: what tells one scorer from another."""

import json
from typing import Any

from lmsys_ensemble.errors import ContractError, EnsembleError
from lmsys_ensemble.scorers.base import Scorer

NAMES = ("name", "device")
"""Settings that no scorer's results depend on."""


def check_settings(scorer: Scorer) -> None:
    """Make sure that a constructor stores its arguments, each under its own name."""
    try:
        settings = scorer.settings()
    except AttributeError as error:
        raise ContractError(
            f"{type(scorer).__name__}'s constructor must store every argument by its name: {error}"
        ) from error
    again = type(scorer)(**settings).settings()
    if again != settings:
        raise ContractError(f"{type(scorer).__name__}'s constructor changes its arguments: {settings} became {again}")
    if not isinstance(getattr(scorer, "name", None), str) or not scorer.name:
        raise ContractError(f"{type(scorer).__name__} needs a name")
    own = vars(type(scorer))  # what a class inherits may name settings that it does not take
    unknown = {key for which in ("neutral_settings", "path_settings") for key in own.get(which, ())} - set(settings)
    if unknown:
        raise ContractError(
            f"{type(scorer).__name__}: neutral_settings and path_settings name {', '.join(sorted(unknown))}, which the "
            f"constructor does not take; it takes {', '.join(settings)}"
        )


def fingerprint_of(scorer: Scorer) -> str:
    """Return a scorer's fingerprint as text."""
    try:
        return json.dumps(scorer.fingerprint(), sort_keys=True)
    except TypeError as error:
        raise ContractError(f"{scorer.name}: fingerprint() must hold JSON values only: {error}") from error


def check_fingerprint(scorer: Scorer, fingerprint: str) -> None:
    """Make sure that a fingerprint changes with every setting that can change a result.

    Numbers, truth values and texts are changed one at a time; a value that the scorer refuses is passed over.
    """
    settings = scorer.settings()
    for key in settings.keys() - {*NAMES, *scorer.neutral_settings}:
        value = _another(settings[key])
        if value is None:
            continue
        try:
            other = fingerprint_of(type(scorer)(**{**settings, key: value}))
        except (EnsembleError, ValueError, OSError) as error:
            if isinstance(error, ContractError):
                raise
            continue
        if other == fingerprint:
            raise ContractError(
                f"{scorer.name}: fingerprint() is the same with {key}={settings[key]!r} and {key}={value!r}, so that a "
                f"resumed run would mix their results. Let fingerprint() tell them apart, or name {key!r} in "
                "neutral_settings where it changes no result"
            )


def _another(value: object) -> Any:
    """Return another value of the same type; None where there is no way to know one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value + max(abs(value), 1.0) / 2
    return f"{value}-other" if isinstance(value, str) else None
