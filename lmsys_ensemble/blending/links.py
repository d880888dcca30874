"""From two rewards to the logits of classes: Davidson, Rao and Kupper, Bradley and Terry, and fitting them.

All three know two responses only by the difference of their rewards, ``d = scale * (reward_a - reward_b)``:

- Davidson (1970, "On extending the Bradley-Terry model to accommodate ties in paired comparison experiments", JASA 65):
  P(A) : P(B) : P(tie) = exp(d / 2) : exp(-d / 2) : exp(tie). A tie is as likely as the geometric mean of both wins
  times ``exp(tie)``.
- Rao and Kupper (1967, "Ties in paired-comparison experiments: a generalization of the Bradley-Terry model", JASA 62):
  P(A) = sigmoid(d - t), P(B) = sigmoid(-d - t), P(tie) = 1 - P(A) - P(B), with the threshold ``t = exp(tie)``. In
  their terms, theta = exp(t). Differences below the threshold are not perceived.
- Bradley and Terry (1952, "Rank analysis of incomplete block designs", Biometrika 39), without ties:
  P(A) = sigmoid(d).
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.regression import fit_softmax, minimise
from lmsys_ensemble.probabilities import Probabilities, check_labels
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY, Task
from lmsys_ensemble.settings import suggest

Array: TypeAlias = NDArray[np.float64]

LINKS = ("davidson", "rao-kupper", "bradley-terry")

_LEAST_SCALE = 1e-6
"""Smallest fitted scale, for rewards of standard size: what prefers the worse response is fitted as next to nothing."""

_LEAST_THRESHOLD = 1e-6
_MOST_TIE = 50.0
"""Largest size of ``tie``; ``exp`` of much more is no number."""


@dataclass(frozen=True)
class Link:
    """Turns two rewards into logits of classes.

    Parameters
    ----------
    kind : {"davidson", "rao-kupper", "bradley-terry"}
        See the module's description. ``bradley-terry`` makes a two-way task of it.
    scale : float
        Factor of the rewards, above 0.
    tie : float
        Davidson: logit of a tie between equal rewards, beside 0 for either win. Rao and Kupper: logarithm of the
        threshold. Without meaning for ``bradley-terry``.

    Raises
    ------
    ConfigError
        If the kind is unknown, or a number cannot be.

    Examples
    --------
    >>> Link("davidson").logits([2.0, 1.0], [1.0, 1.0])
    array([[ 0.5, -0.5,  0. ],
           [ 0. , -0. ,  0. ]])
    """

    kind: str = "davidson"
    scale: float = 1.0
    tie: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in LINKS:
            raise ConfigError(f"unknown link {self.kind!r}{suggest(str(self.kind), LINKS)}")
        if not _is_number(self.scale) or not 0 < self.scale < math.inf:
            raise ConfigError(
                f"scale must be a number above 0, got {self.scale!r}; a model whose rewards are lower for better "
                "responses is no reward model"
            )
        if not _is_number(self.tie) or not -_MOST_TIE <= self.tie <= _MOST_TIE:
            raise ConfigError(f"tie must be a number from {-_MOST_TIE:g} to {_MOST_TIE:g}, got {self.tie!r}")

    @property
    def task(self) -> Task:
        """Classes, in the order of the logits' columns."""
        return TWO_WAY if self.kind == "bradley-terry" else THREE_WAY

    def logits(self, rewards_a: ArrayLike, rewards_b: ArrayLike) -> Array:
        """Return logits of the classes; swapping the rewards swaps the first two columns, to the last bit.

        Davidson's are ``(scale * a, scale * b, scale * (a + b) / 2 + tie)`` less the mean of the first two, which
        changes no probability. Rao's and Kupper's are logarithms of probabilities.

        Parameters
        ----------
        rewards_a, rewards_b : array-like of shape (n_rows,)
            Rewards of the responses.

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
            float64; NaN where a reward is.
        """
        rewards = np.asarray(rewards_a, dtype=np.float64), np.asarray(rewards_b, dtype=np.float64)
        difference = self.scale * (rewards[0] - rewards[1])
        if self.kind != "rao-kupper":
            half = difference / 2
            columns = [half, -half, np.full_like(half, self.tie)]
            columns[2][np.isnan(half)] = np.nan
            return np.column_stack(columns[: self.task.n_classes])
        threshold = math.exp(self.tie)
        with np.errstate(invalid="ignore"):  # NaN is the reward of a row that failed, and stays NaN
            log_a = -np.logaddexp(0, threshold - difference)
            log_b = -np.logaddexp(0, threshold + difference)
        # P(tie) = (theta^2 - 1) P(A) P(B)
        log_odds = 2 * threshold + math.log(-math.expm1(-2 * threshold))
        return np.column_stack([log_a, log_b, log_odds + (log_a + log_b)])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def fit_link(
    rewards_a: ArrayLike,
    rewards_b: ArrayLike,
    labels: ArrayLike,
    link: str = "davidson",
    *,
    sample_weight: ArrayLike | None = None,
) -> Link:
    """Fit a link's scale and tie by maximum likelihood.

    The negative log likelihood is convex in scale and tie (Davidson) or scale and threshold (Rao and Kupper: an
    ordinal logistic regression with thresholds of equal size). With Davidson's link, a fitted blender's temperature and
    tie bias (`lmsys_ensemble.Blender`) come to the same.

    Parameters
    ----------
    rewards_a, rewards_b : array-like of shape (n_rows,)
        Rewards of the responses, as `lmsys_ensemble.RewardScorer.rewards` returns them.
    labels : array-like of shape (n_rows,) or (n_rows, n_classes)
        Class positions, or one-hot or soft labels.
    link : {"davidson", "rao-kupper", "bradley-terry"}
        What to fit.
    sample_weight : array-like of shape (n_rows,), optional
        Weights; an integer weight is the same as repeated rows.

    Returns
    -------
    Link
        Its scale is above 0, next to 0 where higher rewards do not go with wins.

    Raises
    ------
    ConfigError
        If the link is unknown.
    InputError
        If rewards are missing, not finite, or all equal; or labels do not fit.
    """
    task = Link(link).task
    differences = _differences(rewards_a, rewards_b)
    targets = check_labels(labels, n_classes=task.n_classes, n_rows=len(differences))
    weights = _weights(sample_weight, len(differences))
    size = float(np.sqrt(np.mean(differences**2)))
    if size == 0:
        raise InputError("the two rewards are equal in every row; there is no scale to fit")
    if link == "rao-kupper":
        scale, tie = _fit_thresholds(differences / size, targets, weights)
    else:
        scale, tie = _fit_softmax_link(differences / size, targets, weights)
    return Link(link, scale / size, tie)


def _differences(rewards_a: ArrayLike, rewards_b: ArrayLike) -> Array:
    columns = [np.asarray(rewards, dtype=np.float64) for rewards in (rewards_a, rewards_b)]
    if columns[0].ndim != 1 or columns[0].shape != columns[1].shape or not len(columns[0]):
        raise InputError(
            f"rewards have shapes {columns[0].shape} and {columns[1].shape}, expected one number for every response "
            "of at least one row"
        )
    faulty = np.flatnonzero(~np.isfinite(columns[0]) | ~np.isfinite(columns[1]))
    if len(faulty):
        raise InputError(
            f"{len(faulty)} of {len(columns[0])} rows have a reward that is NaN or infinite, first in row {faulty[0]}; "
            "leave out rows that could not be scored, with their labels"
        )
    return np.asarray(columns[0] - columns[1])


def _weights(sample_weight: ArrayLike | None, n_rows: int) -> Array:
    if sample_weight is None:
        return np.ones(n_rows)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n_rows,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum():
        raise InputError(
            f"sample_weight must be {n_rows} numbers of at least 0 that are not all 0, got shape {weights.shape}"
        )
    return weights


def _fit_softmax_link(differences: Array, labels: Probabilities, weights: Array) -> tuple[float, float]:
    """Fit Davidson's link, or with two classes that of Bradley and Terry, from a scale of 1 on."""
    n_classes = labels.shape[1]
    by_scale, by_tie = np.zeros((2, 2, n_classes))
    by_scale[0, :2] = 0.5, -0.5
    by_tie[1, 2:] = 1
    basis = np.stack([by_scale, by_tie][: n_classes - 1])
    lower = np.array([_LEAST_SCALE - 1, -_MOST_TIE][: n_classes - 1])
    fitted = fit_softmax(differences[:, None], labels, by_scale, basis, sample_weight=weights, lower=lower)
    return float(2 * fitted[0, 0]), float(fitted[1, -1])


def _fit_thresholds(differences: Array, labels: Probabilities, weights: Array) -> tuple[float, float]:
    """Fit scale and threshold of Rao's and Kupper's link; returned is the threshold's logarithm."""
    share = weights / weights.sum()
    ties = float(share @ labels[:, 2])
    not_b, not_a = share * (labels[:, 0] + labels[:, 2]), share * (labels[:, 1] + labels[:, 2])

    def objective(parameters: Array, with_derivatives: bool) -> tuple[float, Array, Array]:
        scale, threshold = parameters
        above, below = threshold - scale * differences, threshold + scale * differences
        # log P(tie) = log(exp(2 t) - 1) + log P(A) + log P(B)
        remainder = -math.expm1(-2 * threshold)
        value = float(not_b @ np.logaddexp(0, above) + not_a @ np.logaddexp(0, below))
        value -= ties * (2 * threshold + math.log(remainder))
        if not with_derivatives:
            return value, parameters, parameters
        lost_a, lost_b = _sigmoid(above), _sigmoid(below)  # 1 - P(A), 1 - P(B)
        slope_a, slope_b = not_b * lost_a, not_a * lost_b
        gradient = np.array([differences @ (slope_b - slope_a), slope_a.sum() + slope_b.sum() - 2 * ties / remainder])
        bend_a, bend_b = slope_a * (1 - lost_a), slope_b * (1 - lost_b)
        mixed = float(differences @ (bend_b - bend_a))
        of_threshold = bend_a.sum() + bend_b.sum() + ties * (2 / remainder) ** 2 * math.exp(-2 * threshold)
        hessian = np.array([[differences**2 @ (bend_a + bend_b), mixed], [mixed, of_threshold]])
        return value, gradient, hessian

    lower = np.array([_LEAST_SCALE, _LEAST_THRESHOLD])
    scale, threshold = minimise(objective, np.array([1.0, 0.5]), lower)
    return float(scale), math.log(threshold)


def _sigmoid(values: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -values)))
