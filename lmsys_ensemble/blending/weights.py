"""Weights of scorers: on the simplex, by greedy selection, as exponents, and as whole matrices."""

import numpy as np

from lmsys_ensemble.blending.checks import Array
from lmsys_ensemble.blending.temperature import MIN_INVERSE_TEMPERATURE, centred, tie_swapped, tied_biases
from lmsys_ensemble.evaluation.regression import fit_softmax, minimise, scale_basis
from lmsys_ensemble.probabilities import PROBABILITY_FLOOR, Probabilities, log_probabilities

GREEDY_STEPS = 50
"""Scorers that greedy selection draws at most: weights are multiples of 1 / 50 or coarser."""


def fit_linear_weights(
    members: list[Probabilities], labels: Probabilities, sample_weight: Array | None = None
) -> Array:
    """Find the weights on the simplex whose average of probabilities has the lowest log loss.

    The loss ``-sum y log(sum_s w_s p_s)`` is convex. Adding ``sum_s w_s`` to its mean makes the best
    non-negative weights sum to 1 by themselves, because multiplying all weights by c changes the loss by
    ``-log c``: what remains is a problem with lower bounds only, and scorers that do not help get weight 0
    exactly.

    Parameters
    ----------
    members : list of ndarray of shape (n_rows, n_classes)
        Probabilities, one array per scorer.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft labels.
    sample_weight : ndarray of shape (n_rows,), optional
        Weights of the rows.

    Returns
    -------
    ndarray of shape (n_scorers,)
        At least 0; sums to 1.
    """
    row_weights = np.ones(len(labels)) if sample_weight is None else sample_weight
    shares = labels * (row_weights / row_weights.sum())[:, None]
    used = shares > 0
    shares = shares[used]
    likelihoods = np.maximum(np.column_stack([member[used] for member in members]), PROBABILITY_FLOOR)

    def objective(weights: Array, with_derivatives: bool) -> tuple[float, Array, Array]:
        mixture = np.maximum(likelihoods @ weights, np.finfo(np.float64).tiny)
        value = float(weights.sum() - shares @ np.log(mixture))
        if not with_derivatives:
            return value, weights, weights
        ratios = likelihoods / mixture[:, None]
        return value, 1 - shares @ ratios, ratios.T @ (ratios * shares[:, None])

    weights = minimise(objective, np.full(len(members), 1 / len(members)), lower=0.0)
    return np.asarray(weights / weights.sum())


def select_greedily(
    members: list[Probabilities],
    labels: Probabilities,
    sample_weight: Array | None = None,
    n_steps: int = GREEDY_STEPS,
) -> Array:
    """Draw scorers with replacement, each time the one that lowers the log loss of the average most.

    Caruana et al. 2004, "Ensemble selection from libraries of models" (ICML). The draw stops counting where
    the loss was lowest; of scorers that do equally well the first is taken.

    Parameters
    ----------
    members, labels, sample_weight
        As for `fit_linear_weights`.
    n_steps : int
        Number of draws.

    Returns
    -------
    ndarray of shape (n_scorers,)
        Shares of the draws; sums to 1.
    """
    row_weights = np.ones(len(labels)) if sample_weight is None else sample_weight
    shares = labels * row_weights[:, None]
    used = shares > 0
    shares = shares[used]
    likelihoods = [member[used] for member in members]
    total = np.zeros(len(shares))
    draws: list[int] = []
    losses: list[float] = []
    for step in range(1, n_steps + 1):
        tried = [-float(shares @ np.log(np.maximum((total + one) / step, PROBABILITY_FLOOR))) for one in likelihoods]
        draws.append(int(np.argmin(tried)))
        losses.append(min(tried))
        total += likelihoods[draws[-1]]
    kept = draws[: int(np.argmin(losses)) + 1]
    return np.bincount(kept, minlength=len(members)) / len(kept)


def fit_exponents(
    members: list[Probabilities],
    labels: Probabilities,
    sample_weight: Array | None = None,
    *,
    bias: bool = False,
    swap_equivariant: bool = False,
    l2: float = 1.0,
) -> tuple[Array, Array | None]:
    """Fit the logarithmic pool ``softmax(sum_s exponents[s] * log p_s + bias)``.

    Genest & Zidek 1986 (Statistical Science 1(1)); the exponents need not sum to 1, so that they hold the
    temperatures too. An exponent below 0 would turn a scorer's opinion round and is not allowed.

    Parameters
    ----------
    members, labels, sample_weight
        As for `fit_linear_weights`.
    bias, swap_equivariant : bool
        Whether to fit class biases, and whether the two responses share one.
    l2 : float
        Pull of the exponents towards 1 / n_scorers and of the biases towards 0; see
        `lmsys_ensemble.evaluation.regression.fit_softmax`.

    Returns
    -------
    exponents : ndarray of shape (n_scorers,)
        At least ``MIN_INVERSE_TEMPERATURE / n_scorers``.
    bias : ndarray of shape (n_classes,) or None
        Sums to 0; None where no biases were asked for.
    """
    n_scorers, n_classes = len(members), labels.shape[1]
    exponents = scale_basis(n_scorers, n_classes)
    biases = tied_biases(n_scorers, n_classes, swap_equivariant)
    basis = np.concatenate([exponents, biases[: len(biases) * int(bias)]])
    lower = np.full(len(basis), -np.inf)
    lower[:n_scorers] = (MIN_INVERSE_TEMPERATURE - 1) / n_scorers
    matrix = fit_softmax(
        np.hstack([log_probabilities(member) for member in members]), labels,
        exponents.sum(axis=0) / n_scorers, basis, sample_weight=sample_weight, l2=l2, lower=lower,
    )  # fmt: skip
    return np.asarray(matrix[:-1:n_classes, 0]), centred(matrix[-1]) if bias else None


def fit_stack(
    members: list[Probabilities],
    labels: Probabilities,
    sample_weight: Array | None = None,
    *,
    bias: bool = True,
    swap_equivariant: bool = False,
    l2: float = 1.0,
) -> tuple[Array, Array | None]:
    """Fit multinomial regression on log probabilities, ``softmax(sum_s log p_s @ coefficients[s] + bias)``.

    Stacked generalisation (Wolpert 1992, Neural Networks 5(2)). Unlike ordinary ridge regression it is pulled
    towards the equal logarithmic pool, not towards zero: with few rows it averages instead of guessing.

    Parameters
    ----------
    members, labels, sample_weight
        As for `fit_linear_weights`.
    bias : bool
        Whether to fit class biases.
    swap_equivariant : bool
        Whether swapping the two responses in all members must swap them in the result.
    l2 : float
        Pull towards the equal logarithmic pool; see `lmsys_ensemble.evaluation.regression.fit_softmax`.

    Returns
    -------
    coefficients : ndarray of shape (n_scorers, n_classes, n_classes)
        From log probabilities (rows) to logits (columns).
    bias : ndarray of shape (n_classes,) or None
        Sums to 0; None where no biases were asked for.
    """
    n_scorers, n_classes = len(members), labels.shape[1]
    n_inputs = n_scorers * n_classes + 1
    basis = np.eye(n_inputs * n_classes).reshape(-1, n_inputs, n_classes)
    basis = basis if bias else basis[:-n_classes]
    matrix = fit_softmax(
        np.hstack([log_probabilities(member) for member in members]), labels,
        scale_basis(n_scorers, n_classes).sum(axis=0) / n_scorers,
        tie_swapped(basis) if swap_equivariant else basis, sample_weight=sample_weight, l2=l2,
    )  # fmt: skip
    coefficients = np.asarray(matrix[:-1].reshape(n_scorers, n_classes, n_classes))
    return coefficients, centred(matrix[-1]) if bias else None


def mean_exponents(coefficients: Array) -> Array:
    """Average every scorer's exponent in a stack over classes, of shape (n_scorers,); may be negative.

    The part of its matrix along the identity, after what shifts all classes alike is taken out.
    """
    n_classes = coefficients.shape[1]
    centring = np.eye(n_classes) - 1 / n_classes
    return np.asarray(np.einsum("skl,lk->s", coefficients, centring) / (n_classes - 1))
