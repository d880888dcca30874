"""Out-of-fold log loss of every way to blend two real classifiers, beside scikit-learn and probmetrics.

Run as ``python benchmarks/blending.py``. It needs lmsys_two_models_oof.csv (two fine-tuned classifiers'
probabilities on rows of the competition that neither was trained on) in the folder that LMSYS_ENSEMBLE_DATA
names. probmetrics takes part where it is installed.
"""

import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from lmsys_ensemble import __version__
from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.evaluation.folds import group_folds
from lmsys_ensemble.evaluation.intervals import paired_difference
from lmsys_ensemble.evaluation.metrics import row_log_losses
from lmsys_ensemble.probabilities import check_probabilities, log_probabilities, renormalise

N_FOLDS, SEEDS = 5, (0, 1, 2)

Predict = Callable[[list[np.ndarray]], np.ndarray]
Fit = Callable[[list[np.ndarray], np.ndarray], Predict]


def ours(method: str, calibration: str | None = None, **settings: object) -> Fit:
    return lambda members, y: Blender(method, calibration, **settings).fit(members, y).predict_proba


def single(position: int) -> Fit:
    return lambda members, y: lambda held: held[position]


def arithmetic(members: list[np.ndarray]) -> np.ndarray:
    return np.mean(members, axis=0)


def geometric(members: list[np.ndarray]) -> np.ndarray:
    return renormalise(np.exp(np.mean([log_probabilities(member) for member in members], axis=0)))


def logistic_regression(members: list[np.ndarray], y: np.ndarray) -> Predict:
    def inputs(arrays: list[np.ndarray]) -> np.ndarray:
        return np.hstack([log_probabilities(array) for array in arrays])

    model = LogisticRegression(max_iter=1000).fit(inputs(members), y)
    return lambda held: model.predict_proba(inputs(held))


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose logits are its input, so that scikit-learn's calibration can be applied to them."""

    def fit(self, logits: np.ndarray, y: np.ndarray) -> "Given":
        """Remember the classes."""
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, logits: np.ndarray) -> np.ndarray:
        """Return the input."""
        return logits

    def predict(self, logits: np.ndarray) -> np.ndarray:
        """Return the class of the largest logit."""
        return self.classes_[logits.argmax(axis=1)]


def sklearn_temperature(pool: Callable) -> Fit:
    def fit(members: list[np.ndarray], y: np.ndarray) -> Predict:
        logits = log_probabilities(pool(members))
        frozen = FrozenEstimator(Given().fit(logits, y))
        model = CalibratedClassifierCV(frozen, method="temperature").fit(logits, y)
        return lambda held: model.predict_proba(log_probabilities(pool(held)))

    return fit


def probmetrics(name: str, pool: Callable) -> Fit:
    from probmetrics.calibrators import get_calibrator

    def fit(members: list[np.ndarray], y: np.ndarray) -> Predict:
        model = get_calibrator(name).fit(pool(members), y)
        return lambda held: model.predict_proba(pool(held))

    return fit


def entries() -> dict[str, Fit]:
    table = {
        "model 1 alone": single(0),
        "model 2 alone": single(1),
        "equal": ours("equal"),
        "equal, after": ours("equal", "after"),
        "equal, before+after": ours("equal", "before+after"),
        "greedy": ours("greedy"),
        "linear": ours("linear"),
        "linear, before+after": ours("linear", "before+after"),
        "linear, before+after+bias": ours("linear", "before+after+bias"),
        "log": ours("log"),
        "log, bias": ours("log", "bias"),
        "stack, swap-equivariant": ours("stack", swap_equivariant=True),
        "stack": ours("stack"),
        "auto": ours("auto"),
        "scikit-learn LogisticRegression on logs": logistic_regression,
        "scikit-learn temperature of average": sklearn_temperature(arithmetic),
        "scikit-learn temperature of geometric mean": sklearn_temperature(geometric),
    }
    try:
        for name in ("temp-scaling", "svs", "sms"):
            table[f"probmetrics {name} of average"] = probmetrics(name, arithmetic)
            table[f"probmetrics {name} of geometric mean"] = probmetrics(name, geometric)
    except ImportError as error:
        print(f"probmetrics takes no part: {error}")
    return table


def out_of_fold_losses(fit: Fit, members: list[np.ndarray], y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    predicted = np.empty_like(members[0])
    for fold in range(N_FOLDS):
        held = folds == fold
        predict = fit([member[~held] for member in members], y[~held])
        predicted[held] = predict([member[held] for member in members])
    return row_log_losses(np.eye(predicted.shape[1])[y], predicted)


def read_members() -> tuple[list[np.ndarray], np.ndarray] | None:
    """Return both classifiers' probabilities and the labels, or None, which is said, where the file is absent."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", root.parent / "shared" / "data"))
    path = folder / "lmsys_two_models_oof.csv"
    if not path.exists():
        print(f"skipped: {path} is not there; set LMSYS_ENSEMBLE_DATA to the folder that holds it")
        return None
    table = pd.read_csv(path)
    return [check_probabilities(table.filter(like=prefix)) for prefix in ("m1_", "m2_")], table["label"].to_numpy()


def main() -> int:
    if (rows := read_members()) is None:
        return 0
    members, y = rows
    print(
        f"{len(y)} rows, 2 scorers, {N_FOLDS} folds, mean over {len(SEEDS)} shuffles; cpu, float64; "
        f"lmsys-ensemble {__version__}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}, python {platform.python_version()}"
    )
    losses, seconds = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, fit in entries().items():
            start = time.process_time()
            runs = [
                out_of_fold_losses(fit, members, y, group_folds(np.arange(len(y)), N_FOLDS, seed)) for seed in SEEDS
            ]
            # A row's loss is averaged over shuffles before rows are compared.
            losses[name] = np.mean(runs, axis=0)
            seconds[name] = (time.process_time() - start) / len(SEEDS) / N_FOLDS
    report(losses, seconds)
    return 0


def report(losses: dict[str, np.ndarray], seconds: dict[str, float]) -> None:
    rivals = [name for name in losses if name.startswith(("scikit-learn", "probmetrics"))]
    best = min(rivals, key=lambda name: losses[name].mean())
    print(f"\nDifferences with 95 % paired bootstrap intervals; best rival: {best}\n")
    print("| blend | log loss | to equal | to best rival | CPU s a fit |\n|---|---|---|---|---|")
    for name, row in losses.items():
        cells = [
            f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
            for difference in (paired_difference(row, losses[other]) for other in ("equal", best))
        ]
        print(f"| {name} | {row.mean():.5f} | {cells[0]} | {cells[1]} | {seconds[name]:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
