"""A multinomial regression that cannot prefer a place: differences decide between A and B, what is shared, the tie."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from lmsys_ensemble.evaluation.metrics import row_log_losses
from lmsys_ensemble.evaluation.regression import Objective, minimise
from lmsys_ensemble.lexical.features import Features
from lmsys_ensemble.probabilities import Probabilities, softmax

Array: TypeAlias = NDArray[np.float64]

PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0)
"""Strengths that `choose_penalty` tries: the penalty beside the summed log loss, on scaled features."""

MAX_ROWS = 4000
"""Rows that the penalty is chosen on: it is the inverse variance of a weight, which more rows do not change."""

MAX_DEVIATIONS = 10.0
"""Standard deviations that a scaled feature is cut at, so that no odd text decides by one number."""

_RARE = 1e-6


@dataclass(frozen=True, eq=False)
class Logistic:
    """Weights on scaled features: ``margin = differences @ w`` for A and ``-margin`` for B; the tie has its own.

    Attributes
    ----------
    difference_scales, difference_weights : ndarray of shape (n_differences,)
        Root mean square, and weight.
    shared_means, shared_scales, shared_weights : ndarray of shape (n_shared,)
        Mean, standard deviation, and weight; the latter are 0 where there is no tie.
    tie_bias : float
        Logit of the tie of an average battle.
    n_classes : int
        3 or 2.
    """

    difference_scales: Array
    difference_weights: Array
    shared_means: Array
    shared_scales: Array
    shared_weights: Array
    tie_bias: float
    n_classes: int

    def logits(self, features: Features) -> Array:
        """Return logits of shape (n_rows, n_classes); swapped responses swap the first two exactly."""
        margin = _scaled(features.differences, self.difference_scales) @ self.difference_weights
        if self.n_classes == 2:
            return np.stack([margin, -margin], axis=1)
        shared = _scaled(features.shared - self.shared_means, self.shared_scales)
        return np.stack([margin, -margin, shared @ self.shared_weights + self.tie_bias], axis=1)


def fit_logistic(features: Features, labels: Probabilities, weights: Array, penalty: float) -> Logistic:
    """Fit by penalised maximum likelihood.

    Parameters
    ----------
    features : Features
        Of the rows to learn from.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft.
    weights : ndarray of shape (n_rows,)
        Weight per row.
    penalty : float
        ``penalty / 2`` times the squared norm of the weights is added to the summed log loss.
    """
    n_classes = labels.shape[1]
    difference_scales = np.sqrt(np.mean(features.differences**2, axis=0))
    means, scales = features.shared.mean(axis=0), features.shared.std(axis=0)
    x = _scaled(features.differences, difference_scales)
    z, tie_prior = np.empty((len(x), 0)), 0.0
    if n_classes == 3:
        z = np.column_stack([_scaled(features.shared - means, scales), np.ones(len(x))])
        tie = np.clip(np.average(labels[:, 2], weights=weights), _RARE, 1 - _RARE)
        tie_prior = float(np.log(2 * tie / (1 - tie)))
    found = minimise(_objective(x, z, tie_prior, labels, weights, penalty), np.zeros(x.shape[1] + z.shape[1]))
    of_shared = found[x.shape[1] : -1] if n_classes == 3 else np.zeros(len(means))
    bias = tie_prior + float(found[-1]) if n_classes == 3 else 0.0
    return Logistic(difference_scales, found[: x.shape[1]], means, scales, of_shared, bias, n_classes)


def _objective(
    x: Array, z: Array, tie_prior: float, labels: Probabilities, weights: Array, penalty: float
) -> Objective:
    """Return the penalised log loss of logits ``x @ w``, ``-x @ w`` and ``z @ v + tie_prior``, with its derivatives."""
    total, n_margin = float(weights.sum()), x.shape[1]

    def evaluate(parameters: Array, with_derivatives: bool) -> tuple[float, Array, Array]:
        margin = x @ parameters[:n_margin]
        columns = [margin, -margin, *([z @ parameters[n_margin:] + tie_prior] if z.shape[1] else [])]
        logits = np.stack(columns, axis=1)
        losses = logsumexp(logits, axis=1) - (labels * logits).sum(axis=1)
        value = (float(weights @ losses) + penalty / 2 * float(parameters @ parameters)) / total
        if not with_derivatives:
            return value, parameters, parameters
        p = softmax(logits)
        lead, wanted = p[:, 0] - p[:, 1], labels[:, 0] - labels[:, 1]
        parts = [x.T @ (weights * (lead - wanted))]
        curved = [[x.T @ (x * (weights * (p[:, 0] + p[:, 1] - lead**2))[:, None])]]
        if z.shape[1]:
            parts.append(z.T @ (weights * (p[:, 2] - labels[:, 2])))
            across = x.T @ (z * (-weights * lead * p[:, 2])[:, None])
            curved = [[curved[0][0], across], [across.T, z.T @ (z * (weights * p[:, 2] * (1 - p[:, 2]))[:, None])]]
        gradient = np.concatenate(parts) + penalty * parameters
        return value, gradient / total, (np.block(curved) + penalty * np.eye(len(parameters))) / total

    return evaluate


def choose_penalty(
    features: Features, labels: Probabilities, weights: Array, folds: NDArray[np.intp], seed: int = 0
) -> float:
    """Return the penalty with the least log loss on folds held out.

    Parameters
    ----------
    features, labels, weights
        As for `fit_logistic`; of more than `MAX_ROWS` rows, so many are drawn.
    folds : ndarray of shape (n_rows,)
        Fold of every row.
    seed : int
        Seed of the draw.
    """
    if len(labels) > MAX_ROWS:
        rows = np.sort(np.random.default_rng(seed).permutation(len(labels))[:MAX_ROWS])
        features, labels, weights, folds = features.take(rows), labels[rows], weights[rows], folds[rows]
    losses = [_loss_held_out(features, labels, weights, folds, penalty) for penalty in PENALTIES]
    return PENALTIES[int(np.argmin(losses))]


def _loss_held_out(
    features: Features, labels: Probabilities, weights: Array, folds: NDArray[np.intp], penalty: float
) -> float:
    """Return the summed log loss of every row by a regression that has not seen its fold."""
    loss = 0.0
    for fold in np.unique(folds):
        learn, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        fitted = fit_logistic(features.take(learn), labels[learn], weights[learn], penalty)
        predicted = softmax(fitted.logits(features.take(held)))
        loss += float(weights[held] @ row_log_losses(labels[held], predicted))
    return loss


def shares_of(fitted: Logistic) -> Array:
    """Return the share of every feature in the sum of absolute weights, of shape (n_differences + n_shared,)."""
    sizes = np.abs(np.concatenate([fitted.difference_weights, fitted.shared_weights]))
    return np.asarray(sizes / max(sizes.sum(), _RARE))


def _scaled(values: Array, scales: Array) -> Array:
    """Divide by scales; what never varied in training counts nothing."""
    return np.asarray(np.clip(values / np.where(scales > _RARE, scales, np.inf), -MAX_DEVIATIONS, MAX_DEVIATIONS))
