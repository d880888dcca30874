"""The uncertainty of a measured mean: cluster-robust standard errors, and the bootstrap over groups.

Rows that share a group (a prompt) are not independent, so whole groups are drawn, never rows. A measure that is a
function of sums over rows is resampled with one matrix product: counts of drawn groups times sums per group.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmsys_ensemble.evaluation.folds import group_codes

Array: TypeAlias = NDArray[np.float64]

N_BOOTSTRAP = 1000
MAX_GROUPS = 20_000
"""More groups than this are first merged at random: sums over them vary alike, and it takes seconds."""

_BLOCK = 5_000_000
"""Counts that are held in memory at once, at most."""


def sums_by_group(values: Array, codes: NDArray[np.intp]) -> Array:
    """Add up the rows of every group.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
        Numbers to add.
    codes : ndarray of shape (n_rows,)
        Numbers of the groups, see `lmsys_ensemble.evaluation.folds.group_codes`.

    Returns
    -------
    ndarray of shape (n_groups, n_columns)
    """
    if len(codes) == 0 or codes.max() + 1 == len(codes):
        return values
    return np.column_stack([np.bincount(codes, weights=column) for column in values.T])


def bootstrap_sums(sums: Array, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0) -> Array:
    """Draw groups with replacement and add up their sums.

    Parameters
    ----------
    sums : ndarray of shape (n_groups, n_columns)
        From `sums_by_group`.
    n_bootstrap, seed : int
        Number of draws and seed of the generator.

    Returns
    -------
    ndarray of shape (n_bootstrap, n_columns)
    """
    generator = np.random.default_rng(seed)
    if len(sums) > MAX_GROUPS:
        sums = sums_by_group(sums, generator.permutation(len(sums)) % MAX_GROUPS)
    n_groups = len(sums)
    result = np.empty((n_bootstrap, sums.shape[1]))
    block = max(1, _BLOCK // max(n_groups, 1))
    for first in range(0, n_bootstrap, block):
        size = min(block, n_bootstrap - first)
        counts = np.empty((size, n_groups))
        for draw in range(size):
            counts[draw] = np.bincount(generator.integers(0, n_groups, n_groups), minlength=n_groups)
        result[first : first + size] = counts @ sums
    return result


def mean_interval(
    values: Array, groups: ArrayLike | None = None, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean.

    Parameters
    ----------
    values : ndarray of shape (n_rows,)
        What is averaged.
    groups : array-like of shape (n_rows,), optional
        Rows of one group are drawn together.
    n_bootstrap, seed : int
        Number of resamples and seed of the generator.

    Returns
    -------
    tuple of float
        Lower and upper end.
    """
    sums = sums_by_group(np.column_stack([values, np.ones(len(values))]), group_codes(groups, len(values)))
    draws = bootstrap_sums(sums, n_bootstrap, seed)
    low, high = np.percentile(draws[:, 0] / draws[:, 1], [2.5, 97.5])
    return float(low), float(high)


def standard_error(values: Array, weights: Array | None = None, codes: NDArray[np.intp] | None = None) -> float:
    """Estimate the standard error of a weighted mean, robust to dependence within groups.

    Parameters
    ----------
    values : ndarray of shape (n_rows,)
        What is averaged.
    weights : ndarray of shape (n_rows,), optional
        Weights of the mean.
    codes : ndarray of shape (n_rows,), optional
        Numbers of the groups; without it rows are independent.

    Returns
    -------
    float
        NaN for fewer than two groups.
    """
    weights = np.ones(len(values)) if weights is None else weights
    codes = np.arange(len(values)) if codes is None else codes
    residuals = weights * (values - np.average(values, weights=weights))
    totals = np.bincount(codes, weights=residuals)
    if len(totals) < 2:
        return float("nan")
    return float(np.sqrt(totals @ totals * len(totals) / (len(totals) - 1)) / weights.sum())


@dataclass(frozen=True)
class Difference:
    """A paired difference of two means over the same rows.

    Attributes
    ----------
    mean : float
        Mean of the differences; negative where the first is smaller.
    standard_error : float
        Its standard error.
    low, high : float
        95 % percentile bootstrap interval.
    """

    mean: float
    standard_error: float
    low: float
    high: float


def paired_differences(
    first: Array,
    second: Array,
    groups: ArrayLike | None = None,
    *,
    weights: Array | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> list[Difference]:
    """Compare predictions row by row with another, e.g. their log losses on the same rows.

    Parameters
    ----------
    first : ndarray of shape (n_rows, n_predictions)
        Loss of every row under the predictions.
    second : ndarray of shape (n_rows,)
        Loss of every row under what they are compared with.
    groups : array-like of shape (n_rows,), optional
        Rows of one group are drawn together.
    weights : ndarray of shape (n_rows,), optional
        Weights of the rows.
    n_bootstrap, seed : int
        Number of resamples and seed of the generator.

    Returns
    -------
    list of Difference
        Of ``first - second``, one per prediction.
    """
    values = first - second[:, None]
    weights = np.ones(len(values)) if weights is None else weights
    codes = group_codes(groups, len(values))
    draws = bootstrap_sums(
        sums_by_group(np.column_stack([values, np.ones(len(values))]) * weights[:, None], codes),
        n_bootstrap,
        seed,
    )
    # A draw of nothing but rows of weight 0 says nothing.
    draws = draws[draws[:, -1] > 0]
    low, high = np.percentile(draws[:, :-1] / draws[:, -1:], [2.5, 97.5], axis=0)
    means = np.average(values, axis=0, weights=weights)
    errors = [standard_error(column, weights, codes) for column in values.T]
    return [Difference(*map(float, numbers)) for numbers in zip(means, errors, low, high, strict=True)]


def paired_difference(
    first: Array,
    second: Array,
    groups: ArrayLike | None = None,
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Difference:
    """Compare two predictions row by row; see `paired_differences`, of which this is the case of one."""
    return paired_differences(first[:, None], second, groups, n_bootstrap=n_bootstrap, seed=seed)[0]
