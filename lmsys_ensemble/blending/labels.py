"""Labels as class positions, names or shares, turned into shares: one row of numbers per battle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.probabilities import Probabilities, check_labels


def parse_class_labels(
    y: ArrayLike, classes: Sequence[Any] | None, *, n_classes: int, n_rows: int
) -> tuple[NDArray[Any], Probabilities]:
    """Find out what the classes are called, and turn labels into shares.

    Parameters
    ----------
    y : array-like of shape (n_rows,) or (n_rows, n_classes)
        Names of classes, class positions, or one-hot or soft labels in the order of the probabilities' columns.
    classes : sequence, optional
        Names in the order of the probabilities' columns. Without them, names in `y` belong to the columns in their
        sorted order, as they do in every scikit-learn classifier.
    n_classes, n_rows : int
        Sizes of the probabilities.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Names, or 0, 1, ... where the labels have none.
    labels : ndarray of shape (n_rows, n_classes)
        float64; every row sums to 1.

    Raises
    ------
    InputError
        If a label is missing or no class, or names of classes cannot be told from the labels.
    ConfigError
        If `classes` are not as many as columns, or not different.
    """
    named = None if classes is None else check_classes(classes, n_classes)
    values = np.asarray(y, dtype=object if isinstance(y, pd.Series) else None)
    if values.ndim != 1 or (named is None and not _has_names(values)):
        labels = check_labels(y, n_classes=n_classes, n_rows=n_rows)
        return np.arange(n_classes) if named is None else named, labels
    missing = np.flatnonzero(pd.isna(values))
    if len(missing):
        raise InputError(f"{len(missing)} of {len(values)} labels are missing, first in row {missing[0]}")
    if named is None:
        named = _sorted_names(values, n_classes)
    positions = pd.Index(named).get_indexer(pd.Index(values))
    wrong = np.flatnonzero(positions < 0)
    if len(wrong):
        raise InputError(
            f"{len(wrong)} of {len(values)} labels are no class: row {wrong[0]}, {values.tolist()[wrong[0]]!r}; "
            f"the classes are {', '.join(map(repr, named.tolist()))}"
        )
    return named, check_labels(positions, n_classes=n_classes, n_rows=n_rows)


def count_labels(y: Any) -> int | None:
    """Return the number of rows that labels are for; None for what has no length, which is refused elsewhere."""
    return len(y) if hasattr(y, "__len__") else None


def check_classes(classes: Sequence[Any], n_classes: int) -> NDArray[Any]:
    """Return names of classes as an array; a wrong number and names that occur twice raise ConfigError."""
    names = np.asarray(classes)
    if names.shape != (n_classes,) or len(set(names.tolist())) != n_classes:
        raise ConfigError(
            f"classes must be {n_classes} different names, one per column of the probabilities, got {classes!r}"
        )
    return names


def _has_names(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "US" or (values.dtype == object and any(isinstance(value, str) for value in values))


def _sorted_names(values: NDArray[Any], n_classes: int) -> NDArray[Any]:
    if not all(isinstance(value, str) for value in values):
        raise InputError("labels mix names and numbers; give names, class positions or shares")
    names = np.unique(values.astype(str))
    if len(names) != n_classes:
        raise InputError(
            f"labels hold the {len(names)} names {', '.join(map(repr, names.tolist()[:10]))}, the probabilities "
            f"{n_classes} classes. Name all classes in the order of the columns: Blender(classes=[...])"
        )
    return names
