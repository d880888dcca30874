"""Damped Newton for small convex problems, and the multinomial regression that it solves.

Temperature, class biases, the logarithmic pool, stacking and the calibration slope are one model,

    p = softmax(x @ matrix + bias),    matrix and bias linear in a few parameters,

with different parameters tied together. Its negative log likelihood is convex in the parameters, so Newton finds the
minimum in a few steps, deterministically and to the last digits, where a first-order method needs hundreds.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from sklearn.exceptions import ConvergenceWarning

from lmsys_ensemble.notices import warn
from lmsys_ensemble.probabilities import Probabilities

Array: TypeAlias = NDArray[np.float64]
Objective: TypeAlias = Callable[[Array, bool], tuple[float, Array, Array]]
"""From (parameters, with_derivatives) to value, gradient and Hessian; the last two count only with derivatives."""

MAX_ITERATIONS = 100
TOLERANCE = 1e-10
"""Predicted decrease at which a step is the last: the error of Newton's method squares with each step."""

MIN_STEP = 1e-10
"""Share of a Newton step below which the search along it gives up."""


def minimise(objective: Objective, start: Array, lower: Array | float = -np.inf) -> Array:
    """Minimise a convex function by damped Newton steps that keep to lower bounds.

    Every step solves the quadratic model within the bounds (sequential quadratic programming; Nocedal & Wright 2006,
    "Numerical optimization", chapter 18) and is cut until the function falls. Warns with
    `sklearn.exceptions.ConvergenceWarning` where the minimum is not reached.

    Parameters
    ----------
    objective : callable
        See `Objective`; values are expected to be of order 1.
    start : ndarray of shape (n_parameters,)
        First guess; must respect `lower`.
    lower : ndarray of shape (n_parameters,) or float
        Lower bounds.

    Returns
    -------
    ndarray of shape (n_parameters,)
    """
    parameters = np.array(start, dtype=np.float64)
    bounds = np.broadcast_to(lower, parameters.shape)
    if not len(parameters):
        return parameters
    for _ in range(MAX_ITERATIONS):
        value, gradient, hessian = objective(parameters, True)
        step = _newton_step(gradient, hessian, bounds - parameters)
        slope = float(gradient @ step)
        if -slope < TOLERANCE:
            return np.asarray(np.maximum(parameters + step, bounds))
        size = 1.0
        while size > MIN_STEP and objective(parameters + size * step, False)[0] > value + 1e-4 * size * slope:
            size /= 2
        if size <= MIN_STEP:
            break
        parameters = np.maximum(parameters + size * step, bounds)
    warn(
        f"the fit of {len(parameters)} parameters did not converge; extreme probabilities or very few rows "
        "may be the cause, and a larger l2 helps",
        ConvergenceWarning,
    )
    return parameters


def _newton_step(gradient: Array, hessian: Array, lower: Array) -> Array:
    """Minimise ``gradient @ step + step @ hessian @ step / 2`` over steps of at least `lower`."""
    # A direction without curvature (a duplicated scorer) would make the system singular.
    ridge = max(1e-8 * float(np.trace(hessian)), 1e-300)
    curved = hessian + ridge * np.eye(len(gradient))
    step = -np.linalg.solve(curved, gradient)
    if (step >= lower).all():
        return np.asarray(step, dtype=np.float64)
    root = np.linalg.cholesky(curved)
    within = lsq_linear(root.T, -np.linalg.solve(root, gradient), (lower, np.inf), "bvls", max_iter=100)
    return np.asarray(within.x, dtype=np.float64)


def fit_softmax(
    features: Array,
    labels: Probabilities,
    prior: Array,
    basis: Array,
    *,
    sample_weight: Array | None = None,
    l2: float = 0.0,
    lower: Array | float = -np.inf,
) -> Array:
    """Fit ``softmax([features, 1] @ (prior + sum_j parameters[j] * basis[j]))`` to labels.

    The fit is by penalised maximum likelihood.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features)
        Inputs, without the constant.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft labels; rows sum to 1.
    prior : ndarray of shape (n_features + 1, n_classes)
        The matrix to start from, and the one that the penalty pulls towards. Its last row belongs to the
        constant input.
    basis : ndarray of shape (n_parameters, n_features + 1, n_classes)
        Directions in which the matrix may move.
    sample_weight : ndarray of shape (n_rows,), optional
        Weights; an integer weight is the same as repeated rows.
    l2 : float
        The penalty ``l2 / 2 * ||parameters||**2`` beside the summed (not the mean) log loss, as in
        scikit-learn's ``LogisticRegression(C=1 / l2)``.
    lower : ndarray of shape (n_parameters,) or float
        Lower bounds of the parameters; at most 0.

    Returns
    -------
    ndarray of shape (n_features + 1, n_classes)
        The fitted matrix.
    """
    n_rows = len(labels)
    inputs = np.column_stack([features, np.ones(n_rows)])
    row_weights = np.ones(n_rows) if sample_weight is None else sample_weight
    total = float(row_weights.sum())
    directions = basis.reshape(len(basis), prior.size)
    weighted_labels = labels * row_weights[:, None]
    label_moments = inputs.T @ weighted_labels

    def objective(parameters: Array, with_derivatives: bool) -> tuple[float, Array, Array]:
        logits = inputs @ (prior + np.tensordot(parameters, basis, axes=1))
        logits -= logits.max(axis=1, keepdims=True)
        exponents = np.exp(logits)
        sums = exponents.sum(axis=1)
        loss = float(row_weights @ np.log(sums)) - float((weighted_labels * logits).sum())
        value = (loss + l2 / 2 * float(parameters @ parameters)) / total
        if not with_derivatives:
            return value, parameters, parameters
        predicted = exponents / sums[:, None]
        weighted = predicted * row_weights[:, None]
        gradient = directions @ (inputs.T @ weighted - label_moments).ravel() + l2 * parameters
        hessian = directions @ _curvature(inputs, predicted, weighted) @ directions.T
        return value, gradient / total, (hessian + l2 * np.eye(len(parameters))) / total

    parameters = minimise(objective, np.zeros(len(basis)), lower)
    return np.asarray(prior + np.tensordot(parameters, basis, axes=1))


def scale_basis(n_scorers: int, n_classes: int) -> Array:
    """Return a basis with one factor per scorer, of shape (n_scorers, n_scorers * n_classes + 1, n_classes)."""
    basis = np.zeros((n_scorers, n_scorers * n_classes + 1, n_classes))
    for position in range(n_scorers):
        basis[position, position * n_classes : (position + 1) * n_classes] = np.eye(n_classes)
    return basis


def bias_basis(n_scorers: int, n_classes: int) -> Array:
    """Return a basis with one constant per class, of shape (n_classes, n_scorers * n_classes + 1, n_classes)."""
    basis = np.zeros((n_classes, n_scorers * n_classes + 1, n_classes))
    basis[:, -1] = np.eye(n_classes)
    return basis


def _curvature(inputs: Array, predicted: Array, weighted: Array) -> Array:
    """Return the Hessian of the summed log loss, of shape (n_inputs * n_classes, n_inputs * n_classes)."""
    n_inputs, n_classes = inputs.shape[1], predicted.shape[1]
    result = np.empty((n_inputs, n_classes, n_inputs, n_classes))
    for row in range(n_classes):
        for column in range(row + 1):
            factor = weighted[:, row] * ((row == column) - predicted[:, column])
            result[:, row, :, column] = result[:, column, :, row] = inputs.T @ (inputs * factor[:, None])
    return result.reshape(n_inputs * n_classes, -1)
