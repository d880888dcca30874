"""Logits and probabilities: the only softmax, the only renormalisation, the only swap of classes.

Which of the two an array holds is said by its name and by its type alias, never guessed from its values.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.progress import NOT_FINITE
from lmsys_ensemble.schema import Task

Logits: TypeAlias = NDArray[np.float32]
"""Unnormalised log probabilities of shape (n_rows, n_classes), float32."""

Probabilities: TypeAlias = NDArray[np.float64]
"""Probabilities of shape (n_rows, n_classes), float64; every row sums to 1."""

PROBABILITY_FLOOR = 1e-15
"""Smallest probability that enters a logarithm, as in scikit-learn's ``log_loss``."""

ROUNDING_TOLERANCE = 0.01
"""How far from 1 a row's sum may lie and still be taken for rounding, as in files with two decimals."""


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Probabilities:
    """Turn logits into probabilities, in float64.

    Parameters
    ----------
    logits : array-like of shape (n_rows, n_classes)
        Unnormalised log probabilities.
    temperature : float
        Logits are divided by it; above 1 the result is less confident.

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
    """
    values = np.asarray(logits, dtype=np.float64)
    with np.errstate(over="ignore"):  # a difference too large for a float is a probability of 0
        # The maximum goes first: divided by a tiny temperature it would be infinite, and inf - inf is NaN.
        exponents = np.exp((values - values.max(axis=1, keepdims=True)) / temperature)
    result: Probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    return result


def log_softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Turn logits into logarithms of probabilities, in float64, over the last axis of an array of any shape."""
    values = np.asarray(logits, dtype=np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def mark_failed(logits: ArrayLike, reported: Mapping[int, str]) -> tuple[Logits, dict[int, str]]:
    """Find the rows that failed: those that were reported, and those with a logit that is not finite.

    Parameters
    ----------
    logits : array-like of shape (n_rows, n_classes)
        As a scorer gave them.
    reported : mapping of int to str
        By position, why a row failed, where the scorer said so.

    Returns
    -------
    logits : ndarray of shape (n_rows, n_classes)
        A copy; NaN in rows that failed.
    reasons : dict of int to str
        By position, why each of them failed.
    """
    with np.errstate(over="ignore"):  # what a float32 cannot hold becomes infinite, and is found
        values = np.array(logits, dtype=np.float32)
    faulty = rows_not_finite(values).tolist()
    reasons = {position: reported.get(position, NOT_FINITE) for position in sorted({*faulty, *reported})}
    values[list(reasons)] = np.nan
    return values, reasons


def rows_not_finite(values: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Return the positions of rows that hold NaN or an infinite number; `values` has shape (n_rows, n_classes)."""
    return np.flatnonzero(~np.isfinite(values).all(axis=1))


def log_probabilities(probabilities: ArrayLike) -> Probabilities:
    """Return natural logarithms, floored at ``log(PROBABILITY_FLOOR)``, of shape (n_rows, n_classes)."""
    floored = np.maximum(np.asarray(probabilities, dtype=np.float64), PROBABILITY_FLOOR)
    result: Probabilities = np.log(floored)
    return result


def renormalise(probabilities: ArrayLike) -> Probabilities:
    """Divide every row by its sum; no check is made (see `check_probabilities`)."""
    values = np.asarray(probabilities, dtype=np.float64)
    result: Probabilities = values / values.sum(axis=1, keepdims=True)
    return result


def without_tie(probabilities: ArrayLike) -> Probabilities:
    """Leave the third class out and renormalise: A against B, given that one of the two wins.

    Parameters
    ----------
    probabilities : array-like of shape (n_rows, 3)
        A wins, B wins, tie.

    Returns
    -------
    ndarray of shape (n_rows, 2)
        Every row sums to 1; one that gave both no probability at all is even.

    Examples
    --------
    >>> without_tie([[0.3, 0.1, 0.6], [0.0, 0.0, 1.0]]).round(2).tolist()
    [[0.75, 0.25], [0.5, 0.5]]
    """
    values = np.array(probabilities, dtype=np.float64)[:, :2]
    values[values.sum(axis=1) == 0] = 1
    return renormalise(values)


def check_probabilities(
    probabilities: ArrayLike,
    *,
    n_classes: int | None = None,
    n_rows: int | None = None,
    name: str = "probabilities",
) -> Probabilities:
    """Validate probabilities once, where they enter, and remove what rounding did to their sums.

    Parameters
    ----------
    probabilities : array-like of shape (n_rows, n_classes)
        Rows may miss a sum of 1 by `ROUNDING_TOLERANCE`.
    n_classes, n_rows : int, optional
        Expected shape.
    name : str
        What the error message calls the array.

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
        float64; every row sums to 1.

    Raises
    ------
    InputError
        If the shape is wrong, or a row is not finite, is negative or does not sum to 1.
    """
    values = _as_floats(probabilities, f"{name} must be numbers of shape (n_rows, n_classes)")
    if values.ndim != 2:
        raise InputError(f"{name} must have shape (n_rows, n_classes), got shape {values.shape}")
    if n_classes is not None and values.shape[1] != n_classes:
        raise InputError(f"{name} has {values.shape[1]} columns, expected {n_classes} (one per class)")
    if n_rows is not None and len(values) != n_rows:
        raise InputError(f"{name} has {len(values)} rows, expected {n_rows}")
    with np.errstate(all="ignore"):  # what is not finite, or sums to more than a float holds, is named below
        sums = values.sum(axis=1)
    for fault, rows in (
        ("is not finite", ~np.isfinite(values).all(axis=1)),
        ("is negative", (values < 0).any(axis=1)),
        ("does not sum to 1; logits must go through softmax first", np.abs(sums - 1) > ROUNDING_TOLERANCE),
    ):
        if rows.any():
            first = int(np.flatnonzero(rows)[0])
            row = np.array2string(values[first], precision=4)
            raise InputError(f"{name}: {int(rows.sum())} of {len(values)} rows: row {first}, {row}, {fault}")
    return renormalise(values)


def _as_floats(values: ArrayLike, expected: str) -> NDArray[np.float64]:
    """Return real numbers as float64; what is masked becomes NaN, as it is nowhere else a number."""
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex numbers")
        floats = np.ma.asarray(values, dtype=np.float64) if np.ma.isMaskedArray(values) else None
        return np.asarray(values if floats is None else floats.filled(np.nan), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{expected}; got {error}") from error


def swap_classes(values: NDArray[Any], task: Task) -> NDArray[Any]:
    """Swap the classes "A wins" and "B wins" of an array of shape (n_rows, n_classes)."""
    return values[:, list(task.swap_order)]


def swap_order(n_classes: int) -> tuple[int, ...]:
    """Return the class order after the two responses are swapped, from the number of classes alone."""
    return Task("", ("",) * n_classes).swap_order


def check_labels(labels: ArrayLike, *, n_classes: int, n_rows: int | None = None) -> Probabilities:
    """Validate labels once, where they enter, and bring them into the shape that all measures take.

    Parameters
    ----------
    labels : array-like of shape (n_rows,) or (n_rows, n_classes)
        Class positions 0, 1, ... in the order of the classes; or one-hot or soft labels whose rows sum to 1.
    n_classes, n_rows : int
        Expected number of classes, and of rows where it is known.

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
        float64; every row sums to 1.

    Raises
    ------
    InputError
        If the shape is wrong, or a label is missing or names no class.
    """
    cure = f"labels must be class positions 0 to {n_classes - 1}, or rows of {n_classes} shares that sum to 1"
    values = _as_floats(labels, cure)
    if values.ndim == 2:
        return check_probabilities(values, n_classes=n_classes, n_rows=n_rows, name="labels")
    if values.ndim != 1 or (n_rows is not None and len(values) != n_rows):
        raise InputError(f"labels have shape {values.shape}, expected {n_rows or 'any number of'} rows; {cure}")
    wrong = np.flatnonzero(~np.isin(values, np.arange(n_classes)))
    if len(wrong):
        raise InputError(
            f"{len(wrong)} of {len(values)} labels are no class: row {wrong[0]}, {values[wrong[0]]}; {cure}"
        )
    result: Probabilities = np.eye(n_classes)[values.astype(np.intp)]
    return result
