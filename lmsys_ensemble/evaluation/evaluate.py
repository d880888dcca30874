"""All measures of a prediction in one table, overall and by slices, with bootstrap intervals over groups."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.folds import group_codes
from lmsys_ensemble.evaluation.intervals import N_BOOTSTRAP, bootstrap_sums, sums_by_group
from lmsys_ensemble.evaluation.metrics import (
    recalibration,
    row_accuracies,
    row_brier_scores,
    row_calibration_gaps,
    row_log_losses,
    row_swap_distances,
    row_swap_flips,
)
from lmsys_ensemble.probabilities import (
    Probabilities,
    check_labels,
    check_probabilities,
    log_probabilities,
    softmax,
)

Array: TypeAlias = NDArray[np.float64]

BLEND, CLASS_PRIOR = "blend", "class prior"
"""Names of the models that are measured beside the scorers."""


@dataclass(frozen=True, eq=False)
class _Measure:
    """A measure as a function of the mean over rows: one formula gives its value and its resampled values."""

    name: str
    rows: Array
    value: Callable[[Array], Array]
    """From mean rows, of shape (n_draws, n_columns), to the measure, of shape (n_draws,)."""
    recentre: bool = False
    """Whether chance alone makes resampled values larger; see `_interval`."""


def evaluate(
    labels: ArrayLike,
    probabilities: ArrayLike,
    groups: ArrayLike | None = None,
    swapped: ArrayLike | None = None,
    by: "pd.Series[Any] | pd.DataFrame | Sequence[object] | None" = None,
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure predicted probabilities.

    Parameters
    ----------
    labels : array-like of shape (n_rows,) or (n_rows, n_classes)
        Class positions, or one-hot or soft labels.
    probabilities : array-like of shape (n_rows, n_classes)
        Predictions.
    groups : array-like of shape (n_rows,), optional
        Rows of one group, e.g. of one prompt, are drawn together by the bootstrap.
    swapped : array-like of shape (n_rows, n_classes), optional
        Predictions for the same battles with the responses swapped, as the scorer gave them (not un-swapped).
    by : Series, DataFrame or sequence of length n_rows, optional
        Slices to measure beside the whole, one set per column, matched to the rows by position.
    n_bootstrap, seed : int
        Number of resamples and seed of the generator.

    Returns
    -------
    DataFrame
        One row per measure and slice; columns: by (the column sliced by, "" for all rows), slice, metric,
        value, low, high (95 % bootstrap interval, NaN for fewer than two groups), n_rows, n_groups.

    Raises
    ------
    InputError
        If there are no rows, or shapes, labels or probabilities are wrong.
    ConfigError
        If there are no resamples.

    Examples
    --------
    >>> table = evaluate([0, 1], [[0.8, 0.1, 0.1], [0.3, 0.5, 0.2]])
    >>> table.loc[table.metric == "log_loss", "value"].round(3).item()
    0.458
    """
    checked = check_probabilities(probabilities)
    n_rows, n_classes = checked.shape
    if n_rows == 0:
        raise InputError("there are no rows to evaluate")
    truth = check_labels(labels, n_classes=n_classes, n_rows=n_rows)
    if n_bootstrap < 1:
        raise ConfigError(f"n_bootstrap must be at least 1, got {n_bootstrap}")
    other_order = None
    if swapped is not None:
        other_order = check_probabilities(swapped, n_classes=n_classes, n_rows=n_rows, name="swapped")
    codes = group_codes(groups, n_rows)
    parts = []
    for column, name, rows in _slices(by, n_rows):
        table = _measure_slice(
            _measures(truth[rows], checked[rows], None if other_order is None else other_order[rows]),
            pd.factorize(codes[rows])[0].astype(np.intp), n_bootstrap, seed,
        )  # fmt: skip
        table.insert(0, "by", column)
        table.insert(1, "slice", name)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def evaluate_models(
    labels: Probabilities,
    models: Mapping[str, Probabilities],
    groups: ArrayLike | None = None,
    swapped: Mapping[str, Probabilities] | None = None,
    by: "pd.DataFrame | None" = None,
) -> pd.DataFrame:
    """Measure several models on the same rows.

    Parameters
    ----------
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft labels.
    models : mapping of str to ndarray of shape (n_rows, n_classes)
        Predictions by the model's name.
    groups, by : optional
        As for `evaluate`.
    swapped : mapping of str to ndarray of shape (n_rows, n_classes), optional
        Predictions with the responses swapped, for some or all of the models.

    Returns
    -------
    DataFrame
        The tables of `evaluate`, one below the other, with a column ``model`` in front.
    """
    tables = []
    for name, predicted in models.items():
        figures = evaluate(labels, predicted, groups, (swapped or {}).get(name), by)
        figures.insert(0, "model", name)
        tables.append(figures)
    return pd.concat(tables, ignore_index=True)


def check_model_names(names: Sequence[str]) -> None:
    """Raise `ConfigError` if a scorer is called like one of the models that are measured beside it."""
    taken = sorted({*names} & {BLEND, CLASS_PRIOR})
    if taken:
        raise ConfigError(f"no scorer may be called {', '.join(map(repr, taken))} in an evaluation. Pass name=")


def _slices(by: Any, n_rows: int) -> Iterator[tuple[str, str, NDArray[np.intp]]]:
    yield "", "all", np.arange(n_rows)
    if by is None:
        return
    if isinstance(by, pd.DataFrame):
        columns = {str(name): by[name] for name in by.columns}
    else:
        columns = {str(getattr(by, "name", None) or "slice"): pd.Series(by)}
    for column, values in columns.items():
        if len(values) != n_rows:
            raise InputError(f"by: {column!r} has {len(values)} entries for {n_rows} rows; give one per row")
        codes, names = pd.factorize(values, sort=True, use_na_sentinel=False)
        for position, name in enumerate(names):
            yield column, "missing" if pd.isna(name) else str(name), np.flatnonzero(codes == position)


def _first(means: Array) -> Array:
    return means[:, 0]


def _absolute_sum(means: Array) -> Array:
    return np.asarray(np.abs(means).sum(axis=1))


def _measures(labels: Probabilities, probabilities: Probabilities, swapped: Probabilities | None) -> Iterator[_Measure]:
    yield _Measure("log_loss", row_log_losses(labels, probabilities)[:, None], _first)
    yield _Measure("accuracy", row_accuracies(labels, probabilities)[:, None], _first)
    yield _Measure("brier_score", row_brier_scores(labels, probabilities)[:, None], _first)
    for kind in ("confidence", "classwise"):
        gaps = row_calibration_gaps(labels, probabilities, kind)
        yield _Measure(f"ece_{kind}", gaps, _absolute_sum, recentre=True)
    yield _slope(labels, probabilities)
    if swapped is not None:
        yield _Measure("swap_flip_rate", row_swap_flips(probabilities, swapped)[:, None], _first)
        yield _Measure("swap_total_variation", row_swap_distances(probabilities, swapped)[:, None], _first)


def _slope(labels: Probabilities, probabilities: Probabilities) -> _Measure:
    """Calibration slope; its resampled values are one Newton step from the fitted one, not a fit each."""
    n_rows, n_classes = labels.shape
    slope, bias = recalibration(labels, probabilities)
    logs = log_probabilities(probabilities)
    predicted = softmax(slope * logs + bias)
    # Biases are defined up to a constant: all but the last move freely.
    directions = np.zeros((n_classes, n_rows, n_classes))
    directions[0] = logs
    directions[np.arange(1, n_classes), :, np.arange(n_classes - 1)] = 1
    means = np.einsum("jnk,nk->nj", directions, predicted)
    gradients = np.einsum("jnk,nk->nj", directions, predicted - labels)
    curvatures = np.einsum("ink,jnk,nk->nij", directions, directions, predicted, optimize=True)
    curvatures -= means[:, :, None] * means[:, None, :]

    def value(mean_rows: Array) -> Array:
        gradient = mean_rows[:, :n_classes, None]
        curvature = mean_rows[:, n_classes:].reshape(-1, n_classes, n_classes) + 1e-12 * np.eye(n_classes)
        return np.asarray(slope - np.linalg.solve(curvature, gradient)[:, 0, 0])

    return _Measure("calibration_slope", np.hstack([gradients, curvatures.reshape(n_rows, -1)]), value)


def _measure_slice(measures: Iterator[_Measure], codes: NDArray[np.intp], n_bootstrap: int, seed: int) -> pd.DataFrame:
    n_rows, n_groups = len(codes), int(codes.max()) + 1
    records = []
    for measure in measures:
        point = float(measure.value(measure.rows.mean(axis=0, keepdims=True))[0])
        low = high = float("nan")
        if n_groups > 1:
            sums = sums_by_group(np.column_stack([measure.rows, np.ones(n_rows)]), codes)
            draws = bootstrap_sums(sums, n_bootstrap, seed)
            low, high = _interval(measure, point, draws[:, :-1] / draws[:, -1:])
        records.append((measure.name, point, low, high, n_rows, n_groups))
    return pd.DataFrame(records, columns=["metric", "value", "low", "high", "n_rows", "n_groups"])


def _interval(measure: _Measure, point: float, draws: Array) -> tuple[float, float]:
    """Return the percentile interval, moved back for a calibration error by what resampling added to it.

    An absolute value grows with noise, and resampling adds noise: the plain percentiles of a calibration
    error lie above the value itself. So the interval keeps its width and is centred on the value.
    """
    values = measure.value(draws)
    low, high = np.percentile(values, [2.5, 97.5])
    if measure.recentre:
        shift = point - float(values.mean())
        low, high = max(low + shift, 0.0), high + shift
    return float(low), float(high)
