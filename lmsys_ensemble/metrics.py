"""Measures of how good predicted probabilities are.

Labels are always of shape (n_rows, n_classes): one-hot, or soft where several annotators disagree.
"""

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.probabilities import Probabilities, log_probabilities


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


def accuracy(labels: Probabilities, probabilities: Probabilities) -> float:
    """Share of rows whose most probable class is (one of) the label's; equal label maxima share the credit."""
    picked = probabilities.argmax(axis=1)
    best = labels == labels.max(axis=1, keepdims=True)
    return float((best[np.arange(len(labels)), picked] / best.sum(axis=1)).mean())


def class_prior(labels: Probabilities, n_rows: int) -> Probabilities:
    """Predict the mean of `labels` for each of `n_rows` rows: the baseline that knows nothing of a row."""
    return np.tile(labels.mean(axis=0), (n_rows, 1))


def log_loss_interval(
    labels: Probabilities, probabilities: Probabilities, groups: NDArray[np.object_] | None = None,
    *, n_bootstrap: int = 1000, seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the log loss.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.
    groups : ndarray of shape (n_rows,), optional
        Rows of one group are drawn together.
    n_bootstrap, seed : int
        Number of resamples and seed of the generator.

    Returns
    -------
    tuple of float
        Lower and upper end.
    """
    losses = row_log_losses(labels, probabilities)
    codes = np.arange(len(losses)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(codes, weights=losses), np.bincount(codes)
    generator = np.random.default_rng(seed)
    means = np.empty(n_bootstrap)
    for draw in range(n_bootstrap):
        picked = generator.integers(0, len(counts), len(counts))
        means[draw] = sums[picked].sum() / counts[picked].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
