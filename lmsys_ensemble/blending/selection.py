"""Choosing a method by cross-fitting: the simplest that is as good as the best; equal weights if in doubt."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmsys_ensemble.blending.checks import Array
from lmsys_ensemble.blending.spec import BlendSpec, parse_calibration
from lmsys_ensemble.evaluation.folds import group_codes, group_folds
from lmsys_ensemble.evaluation.intervals import paired_differences, standard_error
from lmsys_ensemble.evaluation.metrics import row_log_losses
from lmsys_ensemble.probabilities import Probabilities

CANDIDATES = (
    ("equal", "none"),
    ("equal", "after"),
    ("greedy", "none"),
    ("linear", "none"),
    ("linear", "after"),
    ("equal", "before+after"),
    ("log", "none"),
    ("linear", "before+after"),
    ("log", "bias"),
    ("linear", "before+after+bias"),
    ("stack", "bias"),
)
"""Methods and calibrations that are compared. "before" never stands alone: an average of calibrated scorers
is under-confident (Ranjan & Gneiting 2010, JRSS B 72(1))."""

N_BOOTSTRAP = 1000

MIN_GROUPS = 100
"""With fewer groups nothing is preferred to the equal blend: intervals of so few are too short, and the
lowest of many noisy losses is low by luck."""


def candidate_specs(
    n_scorers: int,
    n_classes: int,
    calibration: str | None = None,
    *,
    swap_equivariant: bool = False,
    l2: float = 1.0,
) -> list[BlendSpec]:
    """List what is compared, by number of free parameters; the equal blend comes first.

    Parameters
    ----------
    n_scorers, n_classes : int
        Sizes, for counting parameters. With one scorer only calibrations of "equal" and "stack" are left.
    calibration : str, optional
        Calibrations to stay within, e.g. "none".
    swap_equivariant, l2
        Passed on to every spec.

    Returns
    -------
    list of BlendSpec
    """
    allowed = None if calibration is None else parse_calibration(calibration)
    specs = [
        BlendSpec(method, parts, swap_equivariant=swap_equivariant, l2=l2)
        for method, parts in CANDIDATES
        if (allowed is None or parse_calibration(parts) <= allowed) and (n_scorers > 1 or method in ("equal", "stack"))
    ]
    return sorted(specs, key=lambda spec: spec.n_parameters(n_scorers, n_classes))


def cross_fit(
    spec: BlendSpec,
    members: list[Probabilities],
    labels: Probabilities,
    weights: Array,
    folds: NDArray[np.intp],
) -> Probabilities:
    """Predict every row by a blend that was fitted on the other folds.

    Parameters
    ----------
    spec : BlendSpec
        What to fit.
    members : list of ndarray of shape (n_rows, n_classes)
        Checked probabilities, one array per scorer.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft labels.
    weights : ndarray of shape (n_rows,)
        Weights of the rows.
    folds : ndarray of shape (n_rows,)
        Fold of every row, see `lmsys_ensemble.evaluation.folds.group_folds`.

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
    """
    result = np.empty_like(labels)
    for fold in np.unique(folds):
        held = folds == fold
        blend = spec.fit([member[~held] for member in members], labels[~held], weights[~held])
        result[held] = blend.apply([member[held] for member in members])
    return result


def select_spec(
    specs: Sequence[BlendSpec],
    members: list[Probabilities],
    labels: Probabilities,
    weights: Array,
    codes: NDArray[np.intp],
    *,
    n_folds: int = 5,
    seed: int = 0,
) -> tuple[BlendSpec, pd.DataFrame]:
    """Choose the simplest method that is not worse than the best, and equal weights if in doubt.

    A method's gain is certain if the interval of its difference to the equal blend lies below 0. Of those whose gain
    is certain, the simplest is chosen whose out-of-fold log loss is within one standard error of the lowest (Breiman
    et al. 1984, "Classification and regression trees", section 3.4.3; here it is the error of the *paired*
    difference). The equal blend needs no proof.

    The lowest of many losses is low by luck, too. So the choice is repeated without each fold and measured on that
    fold (as in Tibshirani & Tibshirani 2009, Annals of Applied Statistics 3(2)); where the gain of choosing so is not
    certain itself, the simplest method is taken whose own gain is.

    Parameters
    ----------
    specs : sequence of BlendSpec
        By simplicity; the first is the equal blend.
    members, labels, weights
        As for `cross_fit`.
    codes : ndarray of shape (n_rows,)
        Numbers of the rows' groups; groups are not divided between folds.
    n_folds, seed : int
        Number of folds and seed of their shuffle and of the bootstrap. There are never more folds than
        groups.

    Returns
    -------
    spec : BlendSpec
        The chosen one.
    table : DataFrame
        One row per spec: method, calibration, n_parameters, log_loss (out of fold), standard_error (of that),
        difference, low, high (to the equal blend, with a 95 % paired bootstrap interval over groups), gap,
        gap_error (to the lowest, with its standard error), selected.
    """
    folds = group_folds(codes, min(n_folds, int(codes.max()) + 1), seed)
    predictions = [cross_fit(spec, members, labels, weights, folds) for spec in specs]
    losses = np.column_stack([row_log_losses(labels, predicted) for predicted in predictions])
    figures = _compare(losses, weights, codes, seed)
    chosen = _simplest_good(figures) if codes.max() + 1 >= MIN_GROUPS else 0
    if chosen and not _choosing_gains(losses, weights, codes, folds, seed):
        chosen = int(np.argmax(figures["high"] < 0))
    table = pd.DataFrame({
        "method": [spec.method for spec in specs],
        "calibration": [spec.calibration for spec in specs],
        "n_parameters": [spec.n_parameters(len(members), labels.shape[1]) for spec in specs],
    })  # fmt: skip
    table = pd.concat([table, figures], axis=1).assign(selected=np.arange(len(table)) == chosen)
    return specs[chosen], table


def _compare(losses: Array, weights: Array, codes: NDArray[np.intp], seed: int) -> pd.DataFrame:
    """Compare specs by the losses of rows that they were not fitted on, of shape (n_rows, n_specs).

    Returns the columns of `select_spec` that are measured, one row per spec.
    """
    means = np.average(losses, axis=0, weights=weights)
    lowest = losses[:, int(np.argmin(means))]
    to_equal = paired_differences(losses, losses[:, 0], codes, weights=weights, n_bootstrap=N_BOOTSTRAP, seed=seed)
    return pd.DataFrame({
        "log_loss": means,
        "standard_error": [standard_error(column, weights, codes) for column in losses.T],
        "difference": [difference.mean for difference in to_equal],
        "low": [difference.low for difference in to_equal],
        "high": [difference.high for difference in to_equal],
        "gap": means - means.min(),
        "gap_error": [standard_error(column - lowest, weights, codes) for column in losses.T],
    })  # fmt: skip


def _simplest_good(figures: pd.DataFrame) -> int:
    """Return the position of the simplest method that is certainly better than equal and hardly worse than the best."""
    near = figures["gap"] <= figures["gap_error"]
    choice = near & (figures["high"] < 0)
    return 0 if near.iloc[0] or not choice.any() else int(np.argmax(choice))


def _choosing_gains(losses: Array, weights: Array, codes: NDArray[np.intp], folds: NDArray[np.intp], seed: int) -> bool:
    """Whether choosing as such is certain to gain: every fold's rows under what would be chosen without them."""
    chosen = np.empty(len(losses))
    for fold in np.unique(folds):
        held = folds == fold
        others = group_codes(codes[~held], int((~held).sum()))
        chosen[held] = losses[held, _simplest_good(_compare(losses[~held], weights[~held], others, seed))]
    difference = paired_differences(
        chosen[:, None], losses[:, 0], codes, weights=weights, n_bootstrap=N_BOOTSTRAP, seed=seed
    )
    return difference[0].high < 0
