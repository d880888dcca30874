"""Temperature and class biases: calibration of one array of probabilities."""

import numpy as np

from lmsys_ensemble.blending.checks import Array
from lmsys_ensemble.evaluation.regression import bias_basis, fit_softmax, scale_basis
from lmsys_ensemble.probabilities import Probabilities, log_probabilities, swap_order

MIN_INVERSE_TEMPERATURE = 0.01
"""Temperatures end at 100, where hardly anything is left of a prediction that should rather be left out."""


def fit_temperature(
    probabilities: Probabilities,
    labels: Probabilities,
    sample_weight: Array | None = None,
    *,
    scale: bool = True,
    bias: bool = False,
    swap_equivariant: bool = False,
    l2: float = 1.0,
) -> tuple[float, Array | None]:
    """Fit ``softmax(log p / temperature + bias)`` (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    The log loss is convex in 1 / temperature and the biases, which are what is fitted.

    Parameters
    ----------
    probabilities, labels : ndarray of shape (n_rows, n_classes)
        Rows sum to 1; labels may be soft.
    sample_weight : ndarray of shape (n_rows,), optional
        Weights of the rows.
    scale, bias : bool
        Whether to fit a temperature (otherwise it is 1), and class biases.
    swap_equivariant : bool
        Whether the two responses share one bias.
    l2 : float
        Pull of 1 / temperature towards 1 and of the biases towards 0; see
        `lmsys_ensemble.evaluation.regression.fit_softmax`.

    Returns
    -------
    temperature : float
        At most ``1 / MIN_INVERSE_TEMPERATURE``.
    bias : ndarray of shape (n_classes,) or None
        Sums to 0; None where no biases were asked for.
    """
    n_classes = labels.shape[1]
    unchanged = scale_basis(1, n_classes)
    biases = tied_biases(1, n_classes, swap_equivariant)
    basis = np.concatenate([unchanged[: int(scale)], biases[: len(biases) * int(bias)]])
    lower = np.full(len(basis), -np.inf)
    if scale:
        lower[0] = MIN_INVERSE_TEMPERATURE - 1
    matrix = fit_softmax(
        log_probabilities(probabilities),
        labels,
        unchanged[0],
        basis,
        sample_weight=sample_weight,
        l2=l2,
        lower=lower,
    )
    return 1 / float(matrix[0, 0]), centred(matrix[-1]) if bias else None


def tied_biases(n_scorers: int, n_classes: int, swap_equivariant: bool) -> Array:
    """Class biases as in `lmsys_ensemble.evaluation.regression.bias_basis`; on request the two responses share one."""
    basis = bias_basis(n_scorers, n_classes)
    return tie_swapped(basis) if swap_equivariant else basis


def tie_swapped(basis: Array) -> Array:
    """Tie the parameters that change places when the two responses are swapped.

    Parameters
    ----------
    basis : ndarray of shape (n_parameters, n_scorers * n_classes + 1, n_classes)
        Directions; swapping the responses maps each to itself or to another of them.

    Returns
    -------
    ndarray of shape (n_free_parameters, n_scorers * n_classes + 1, n_classes)
        Every direction plus its mirror image, each pair once.
    """
    n_inputs, n_classes = basis.shape[1:]
    classes = np.array(swap_order(n_classes))
    scorers = np.arange(0, n_inputs - 1, n_classes)[:, None]
    inputs = np.append((scorers + classes).ravel(), n_inputs - 1)
    tied = np.maximum(basis, basis[:, inputs][:, :, classes])
    first = np.unique(tied.reshape(len(tied), -1), axis=0, return_index=True)[1]
    return np.asarray(tied[np.sort(first)])


def centred(bias: Array) -> Array:
    """Shift biases, which are defined up to a constant, so that they sum to 0."""
    return np.asarray(bias - bias.mean())
