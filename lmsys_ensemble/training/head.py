"""A head by logistic regression on pooled hidden states.

Linear probing before fine-tuning keeps a random head from spoiling the layers below it (Kumar et al. 2022,
"Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution").
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from lmsys_ensemble.probabilities import Probabilities


def fit_head(
    pooled: NDArray[np.float64],
    labels: Probabilities,
    weights: NDArray[np.float64],
    l2: float,
    *,
    with_bias: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a multinomial logistic regression with soft labels.

    It minimises the weighted mean cross-entropy plus `l2` times the squared norm of the weights, on standardised
    inputs; what is returned applies to inputs as they are.

    Parameters
    ----------
    pooled : ndarray of shape (n_rows, n_features)
        Input of the head.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft.
    weights : ndarray of shape (n_rows,)
        Weight of every row.
    l2 : float
        Strength of the penalty.
    with_bias : bool
        Whether there is a bias; without one the inputs are scaled but not centred.

    Returns
    -------
    weight : ndarray of shape (n_classes, n_features)
    bias : ndarray of shape (n_classes,)
        Zeros where there is none.
    """
    centre = pooled.mean(axis=0) if with_bias else np.zeros(pooled.shape[1])
    scale = np.sqrt(np.square(pooled - centre).mean(axis=0)) + 1e-6
    inputs = (pooled - centre) / scale
    share = weights / weights.sum()
    n_features, n_classes = inputs.shape[1], labels.shape[1]

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        coefficients = flat.reshape(n_features + 1, n_classes)
        scores = log_softmax(inputs @ coefficients[:-1] + coefficients[-1], axis=1)
        residual = share[:, None] * (np.exp(scores) * labels.sum(axis=1, keepdims=True) - labels)
        gradient = np.empty_like(coefficients)
        gradient[:-1] = inputs.T @ residual + 2 * l2 * coefficients[:-1]
        gradient[-1] = residual.sum(axis=0) if with_bias else 0
        loss = -(share[:, None] * labels * scores).sum() + l2 * np.square(coefficients[:-1]).sum()
        return float(loss), gradient.ravel()

    start = np.zeros((n_features + 1) * n_classes)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    coefficients = found.reshape(n_features + 1, n_classes)
    weight = (coefficients[:-1] / scale[:, None]).T
    return weight, coefficients[-1] - weight @ centre
