"""What comes in is checked once, here: members, weights, temperatures."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.probabilities import Probabilities, check_probabilities

Array: TypeAlias = NDArray[np.float64]

MAX_TOTAL_WEIGHT = 1e100
"""Rows that count more often than this in total, or less often than one in as many, make curvatures overflow."""


def check_weights(
    weights: ArrayLike, name: str = "weights", error: type[ConfigError] | type[InputError] = ConfigError
) -> Array:
    """Return weights of shape (n,) as float64; refuse NaN, negative, all-zero and overflowing ones with `error`."""
    values = _vector(weights, name, error)
    with np.errstate(over="ignore"):
        total = values.sum()
    if not np.isfinite(values).all() or (values < 0).any() or not total > 0:
        raise error(f"{name} must be finite, at least 0 and not all 0, got {_shown(values)}")
    if not np.isfinite(total):
        raise error(f"{name} are so large that their sum is infinite, got {_shown(values)}; scale them down")
    return values


def check_temperatures(temperatures: ArrayLike, name: str = "temperature") -> Array:
    """Return temperatures of shape (n,) as float64; refuse what is not finite and above 0."""
    values = _vector(temperatures, name)
    if not np.isfinite(values).all() or not (values > 0).all():
        raise ConfigError(f"{name} must be finite and above 0, got {_shown(values)}; 1 changes nothing")
    return values


def _vector(values: ArrayLike, name: str, error: type[ConfigError] | type[InputError] = ConfigError) -> Array:
    try:
        vector = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError) as fault:
        raise error(f"{name} must be one list of numbers: {fault}") from fault
    if vector.ndim != 1 or not len(vector):
        raise error(f"{name} must be one list of numbers, got shape {vector.shape}")
    return vector


def _shown(values: Array) -> str:
    return np.array2string(values, threshold=10)


def check_members(probabilities: Sequence[Any], names: Sequence[str] | None = None) -> list[Probabilities]:
    """Validate the scorers' probabilities, renormalise their rows and make sure that they are aligned.

    Parameters
    ----------
    probabilities : sequence of array-like of shape (n_rows, n_classes)
        One per scorer, all of one shape. Tables must also agree in index and columns.
    names : sequence of str, optional
        What errors call the scorers; by default their positions.

    Returns
    -------
    list of ndarray of shape (n_rows, n_classes)
        float64; every row sums to 1.

    Raises
    ------
    InputError
        If there is none, shapes, indexes or columns differ, or an array does not hold probabilities.
    """
    if not len(probabilities):
        raise InputError(
            "probabilities is empty; a blend needs at least one scorer's array of shape (n_rows, n_classes)"
        )
    members: list[Probabilities] = []
    for position, member in enumerate(probabilities):
        name = f"probabilities[{position if names is None else repr(names[position])}]"
        checked = check_probabilities(member, name=name)
        if members and checked.shape != members[0].shape:
            raise InputError(
                f"{name} has shape {checked.shape}, the first has {members[0].shape}; "
                "all scorers must have scored the same rows in the same order"
            )
        members.append(checked)
    tables = [member for member in probabilities if isinstance(member, pd.DataFrame)]
    for table in tables[1:]:
        if not (table.index.equals(tables[0].index) and table.columns.equals(tables[0].columns)):
            raise InputError("the scorers' tables differ in index or columns; bring them into one order (reindex_like)")
    return members


def check_pull(l2: Any) -> None:
    """Refuse a strength of the pull towards the equal blend that is no finite number of at least 0."""
    if not isinstance(l2, (int, float, np.number)) or not np.isfinite(l2) or l2 < 0:
        raise ConfigError(f"l2 must be a finite number of at least 0, got {l2!r}")


def check_integer(value: Any, name: str, least: int) -> int:
    """Return a setting that must be a whole number of at least `least`; anything else is a ConfigError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def check_sample_weight(sample_weight: ArrayLike | None, n_rows: int) -> Array:
    """Return weights of shape (n_rows,) as float64, 1 where none are given; wrong ones raise InputError."""
    if sample_weight is None:
        return np.ones(n_rows)
    weights = check_weights(sample_weight, "sample_weight", InputError)
    if len(weights) != n_rows:
        raise InputError(f"sample_weight has {len(weights)} entries for {n_rows} rows; give one per row")
    if not 1 / MAX_TOTAL_WEIGHT <= weights.sum() <= MAX_TOTAL_WEIGHT:
        raise InputError(
            f"sample_weight sums to {weights.sum():.3g}, expected {1 / MAX_TOTAL_WEIGHT:g} to {MAX_TOTAL_WEIGHT:g}: it "
            "is the number of times that every row counts"
        )
    return weights


def as_fixed(values: ArrayLike | None) -> float | tuple[float, ...] | None:
    """Turn what a user fixed into None, one number or a tuple of numbers; anything else is a ConfigError."""
    if values is None:
        return None
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"expected a number or one per scorer, got {values!r}") from error
    if array.ndim > 1 or array.size == 0:
        raise ConfigError(f"expected a number or one per scorer, got shape {array.shape}")
    return float(array) if array.ndim == 0 else tuple(array.tolist())
