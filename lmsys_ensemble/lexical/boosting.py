"""Gradient-boosted trees on the features, by LightGBM, which cannot prefer a place: both orders are averaged."""

from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.errors import MissingDependencyError
from lmsys_ensemble.evaluation.metrics import row_log_losses
from lmsys_ensemble.lexical.features import Features, swap_features
from lmsys_ensemble.probabilities import Probabilities, softmax, swap_classes
from lmsys_ensemble.schema import task_of

Array: TypeAlias = NDArray[np.float64]

ROUNDS = (20, 40, 80, 160, 240)
"""Rounds that `choose_rounds` tries."""

PARAMETERS: dict[str, Any] = {
    "objective": "multiclass", "learning_rate": 0.04, "num_leaves": 8, "min_data_in_leaf": 40, "lambda_l2": 10.0,
    "feature_fraction": 0.4, "bagging_fraction": 0.7, "bagging_freq": 1, "max_bin": 63, "deterministic": True,
    "force_row_wise": True, "verbosity": -1,
}  # fmt: skip


def has_lightgbm() -> bool:
    """Tell whether the package is installed."""
    return find_spec("lightgbm") is not None


def import_lightgbm() -> ModuleType:
    """Return the package.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise MissingDependencyError(
            "boosted trees need the package lightgbm, which is not installed: pip install 'lmsys-ensemble[lexical]'. A "
            "model that was fitted as 'logistic' needs no package"
        ) from error
    module: ModuleType = lightgbm
    return module


def inputs_of(features: Features) -> Array:
    """Return what the trees see, of shape (n_rows, n_differences + n_shared)."""
    return np.hstack([features.differences, features.shared])


def raw_logits(booster: Any, features: Features, n_classes: int, n_rounds: int | None = None) -> Array:
    """Return the trees' logits, averaged over both orders, of shape (n_rows, n_classes).

    The sum of two numbers does not depend on their order, so that swapped responses swap the classes exactly.
    """
    one, other = (
        np.reshape(
            booster.predict(inputs_of(order), raw_score=True, num_iteration=n_rounds, num_threads=1), (-1, n_classes)
        )
        for order in (features, swap_features(features))
    )
    return np.asarray((one + swap_classes(other, task_of(n_classes))) / 2)


def choose_rounds(
    features: Features, labels: Probabilities, weights: Array, folds: NDArray[np.intp], seed: int = 0
) -> int:
    """Return the number of rounds with the least log loss on folds held out.

    Parameters are those of `fit_trees`, and the fold of every row. For each number the first trees of one fit count.
    """
    losses = np.zeros(len(ROUNDS))
    for fold in np.unique(folds):
        learn, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        trees = fit_trees(features.take(learn), labels[learn], weights[learn], ROUNDS[-1], seed=seed)
        for position, n_rounds in enumerate(ROUNDS):
            logits = raw_logits(trees, features.take(held), labels.shape[1], n_rounds)
            losses[position] += float(weights[held] @ row_log_losses(labels[held], softmax(logits)))
    return ROUNDS[int(np.argmin(losses))]


def fit_trees(features: Features, labels: Probabilities, weights: Array, n_rounds: int, *, seed: int = 0) -> Any:
    """Fit trees to rows in both orders.

    Parameters
    ----------
    features, labels, weights
        Of the rows to learn from; a soft label is a row per class with its share as weight.
    n_rounds : int
        Rounds of boosting.
    seed : int
        Seed of bagging.

    Returns
    -------
    lightgbm.Booster
    """
    lightgbm = import_lightgbm()
    n_classes = labels.shape[1]
    inputs = np.vstack([inputs_of(features), inputs_of(swap_features(features))])
    targets = np.vstack([labels, swap_classes(labels, task_of(n_classes))])
    rows, classes = np.nonzero(targets)
    row_weights = targets[rows, classes] * np.tile(weights, 2)[rows]
    data = lightgbm.Dataset(inputs[rows], classes, weight=row_weights, params=PARAMETERS)
    return lightgbm.train({**PARAMETERS, "num_class": n_classes, "seed": seed}, data, n_rounds)


def gains(trees: Any) -> Array:
    """Return the share of the trees' gain by feature, of shape (n_differences + n_shared,)."""
    values = np.asarray(trees.feature_importance("gain"), dtype=np.float64)
    return np.asarray(values / max(values.sum(), 1e-12))
