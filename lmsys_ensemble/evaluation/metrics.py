"""Measures of how good predicted probabilities are.

Labels are always of shape (n_rows, n_classes): one-hot, or soft where several annotators disagree. A soft
label stands for one annotator drawn at random, and every measure is the expectation over that draw.

The functions that start with ``row_`` give one number per row; a measure is their mean. See
`lmsys_ensemble.evaluation.evaluate.evaluate` for all of them in one table, with intervals.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.evaluation.intervals import mean_interval
from lmsys_ensemble.evaluation.regression import bias_basis, fit_softmax, scale_basis
from lmsys_ensemble.probabilities import Probabilities, log_probabilities, swap_order

N_BINS = 15
"""Bins of equal width of the calibration errors, as in Guo et al. 2017 (arXiv:1706.04599)."""


def row_log_losses(labels: Probabilities, probabilities: Probabilities) -> NDArray[np.float64]:
    """Cross-entropy of every row, of shape (n_rows,), in nats."""
    result: NDArray[np.float64] = -(labels * log_probabilities(probabilities)).sum(axis=1)
    return result


def log_loss(labels: Probabilities, probabilities: Probabilities) -> float:
    """Mean cross-entropy in nats: the competition's metric.

    With soft labels this is the expected log loss over the annotators.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.

    Returns
    -------
    float
    """
    return float(row_log_losses(labels, probabilities).mean())


def row_accuracies(labels: Probabilities, probabilities: Probabilities) -> NDArray[np.float64]:
    """Credit of every row for its most probable class, of shape (n_rows,); see `accuracy`."""
    picked = probabilities.argmax(axis=1)
    best = labels == labels.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = best[np.arange(len(labels)), picked] / best.sum(axis=1)
    return result


def accuracy(labels: Probabilities, probabilities: Probabilities) -> float:
    """Share of rows whose most probable class is that of the label; equal label maxima share the credit."""
    return float(row_accuracies(labels, probabilities).mean())


def row_brier_scores(labels: Probabilities, probabilities: Probabilities) -> NDArray[np.float64]:
    """Squared distance to the label, summed over classes, of shape (n_rows,), from 0 to 2."""
    result: NDArray[np.float64] = (probabilities**2 - 2 * labels * probabilities + labels).sum(axis=1)
    return result


def brier_score(labels: Probabilities, probabilities: Probabilities) -> float:
    """Mean squared error over all classes (Brier 1950, Monthly Weather Review 78(1)), from 0 to 2.

    With soft labels this is the expected score over the annotators.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.

    Returns
    -------
    float
    """
    return float(row_brier_scores(labels, probabilities).mean())


def row_calibration_gaps(
    labels: Probabilities, probabilities: Probabilities, kind: str = "confidence", n_bins: int = N_BINS
) -> NDArray[np.float64]:
    """Return what each row adds to the gap between predicted and observed in its bin.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.
    kind : {"confidence", "classwise"}
        See `expected_calibration_error`.
    n_bins : int
        Number of bins of equal width.

    Returns
    -------
    ndarray of shape (n_rows, n_columns)
        The absolute values of the columns' means add up to the expected calibration error.

    Raises
    ------
    ConfigError
        For another kind, or fewer than one bin.
    """
    n_rows, n_classes = probabilities.shape
    if n_bins < 1:
        raise ConfigError(f"n_bins must be at least 1, got {n_bins}")
    if kind == "confidence":
        predicted = probabilities.max(axis=1, keepdims=True)
        observed, share = row_accuracies(labels, probabilities)[:, None], 1.0
    elif kind == "classwise":
        predicted, observed, share = probabilities, labels, 1 / n_classes
    else:
        raise ConfigError(f"kind must be 'confidence' or 'classwise', got {kind!r}")
    bins = _bins(predicted, n_bins)
    gaps = np.zeros((n_rows, bins.shape[1], n_bins))
    np.put_along_axis(gaps, bins[:, :, None], share * (predicted - observed)[:, :, None], axis=2)
    return gaps.reshape(n_rows, -1)


def _bins(probabilities: NDArray[np.float64], n_bins: int) -> NDArray[np.intp]:
    return np.minimum((probabilities * n_bins).astype(np.intp), n_bins - 1)


def expected_calibration_error(
    labels: Probabilities, probabilities: Probabilities, kind: str = "confidence", n_bins: int = N_BINS
) -> float:
    """Mean distance between predicted probability and observed share, over bins of equal width.

    A perfectly calibrated prediction has a value above 0 as well, by chance, the more so the fewer rows there
    are.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.
    kind : {"confidence", "classwise"}
        Of the most probable class only (Guo et al. 2017, arXiv:1706.04599), or of every class by itself and
        averaged over classes (Kull et al. 2019, arXiv:1910.12656).
    n_bins : int
        Number of bins.

    Returns
    -------
    float
    """
    return float(np.abs(row_calibration_gaps(labels, probabilities, kind, n_bins).mean(axis=0)).sum())


def reliability_table(labels: Probabilities, probabilities: Probabilities, n_bins: int = 10) -> pd.DataFrame:
    """Tabulate what a reliability diagram draws: predicted against observed, by class and bin.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.
    n_bins : int
        Number of bins of equal width; empty ones are left out.

    Returns
    -------
    DataFrame
        Columns: class (position), bin, predicted (mean), observed (share), standard_error (of observed),
        n_rows.
    """
    if n_bins < 1:
        raise ConfigError(f"n_bins must be at least 1, got {n_bins}")
    bins = _bins(probabilities, n_bins)
    parts = []
    for position in range(probabilities.shape[1]):
        columns = {
            "predicted": probabilities[:, position],
            "observed": labels[:, position],
            "bin": bins[:, position],
        }
        grouped = pd.DataFrame(columns).groupby("bin")
        part = grouped.mean()
        part["n_rows"] = grouped.size()
        part["standard_error"] = np.sqrt(part["observed"] * (1 - part["observed"]) / part["n_rows"])
        parts.append(part.reset_index().assign(**{"class": position}))
    return pd.concat(parts, ignore_index=True)[["class", "bin", "predicted", "observed", "standard_error", "n_rows"]]


def recalibration(labels: Probabilities, probabilities: Probabilities) -> tuple[float, NDArray[np.float64]]:
    """Fit ``softmax(slope * log p + bias)`` to the labels.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.

    Returns
    -------
    slope : float
        See `calibration_slope`.
    bias : ndarray of shape (n_classes,)
        Sums to 0.
    """
    n_classes = labels.shape[1]
    scale = scale_basis(1, n_classes)
    basis = np.concatenate([scale, bias_basis(1, n_classes)])
    # The slight pull keeps a slice in which a class never occurs from an infinite bias.
    matrix = fit_softmax(log_probabilities(probabilities), labels, scale[0], basis, l2=1e-3)
    return float(matrix[0, 0]), matrix[-1]


def calibration_slope(labels: Probabilities, probabilities: Probabilities) -> float:
    """Fit the slope of the labels' log odds in the predicted ones.

    Below 1 is over-confident, above 1 under-confident; it is 1 / temperature. The model is
    ``softmax(slope * log p + bias)`` with free biases: Cox 1958 (Biometrika 45), for several classes as in
    van Hoorde et al. 2014 (Statistics in Medicine 33).

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.

    Returns
    -------
    float
    """
    return recalibration(labels, probabilities)[0]


def row_swap_flips(probabilities: Probabilities, swapped: Probabilities) -> NDArray[np.float64]:
    """Whether the verdict changes when the two responses change places, of shape (n_rows,).

    Parameters
    ----------
    probabilities : ndarray of shape (n_rows, n_classes)
        Predictions for the battles as they are.
    swapped : ndarray of shape (n_rows, n_classes)
        Predictions for the battles with the responses swapped, as the scorer gave them: the first column is for
        the response that stood first then.
    """
    return np.asarray(probabilities.argmax(axis=1) != _unswapped(swapped).argmax(axis=1), dtype=np.float64)


def row_swap_distances(probabilities: Probabilities, swapped: Probabilities) -> NDArray[np.float64]:
    """Total variation between p(A, B) and the un-swapped p(B, A), of shape (n_rows,), from 0 to 1.

    Parameters are those of `row_swap_flips`.
    """
    result: NDArray[np.float64] = np.abs(probabilities - _unswapped(swapped)).sum(axis=1) / 2
    return result


def _unswapped(swapped: Probabilities) -> Probabilities:
    return swapped[:, list(swap_order(swapped.shape[1]))]


def class_prior(labels: Probabilities, n_rows: int) -> Probabilities:
    """Return the mean of `labels` for each of `n_rows` rows: the baseline that knows nothing about a row."""
    return np.tile(labels.mean(axis=0), (n_rows, 1))


def log_loss_interval(
    labels: Probabilities,
    probabilities: Probabilities,
    groups: ArrayLike | None = None,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the log loss.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.
    groups : array-like of shape (n_rows,), optional
        Rows of one group are drawn together.
    n_bootstrap, seed : int
        Number of resamples and seed of the generator.

    Returns
    -------
    tuple of float
        Lower and upper end.
    """
    return mean_interval(row_log_losses(labels, probabilities), groups, n_bootstrap=n_bootstrap, seed=seed)
