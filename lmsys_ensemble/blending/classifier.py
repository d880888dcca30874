"""The part of a blender that makes it a scikit-learn classifier: classes, accuracy, tags."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from lmsys_ensemble.blending.checks import check_sample_weight
from lmsys_ensemble.blending.labels import check_classes, parse_class_labels
from lmsys_ensemble.blending.members import MemberProbabilities
from lmsys_ensemble.evaluation.metrics import row_accuracies
from lmsys_ensemble.probabilities import Probabilities


class BlendingClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What scikit-learn asks of a classifier, on top of `predict_proba`."""

    classes: Any
    classes_: NDArray[Any]

    def predict_proba(self, probabilities: MemberProbabilities) -> Probabilities:
        """Blend probabilities."""
        raise NotImplementedError

    def predict(self, probabilities: MemberProbabilities) -> NDArray[Any]:
        """Return the most probable class of every row, of shape (n_rows,), by the names in ``classes_``."""
        blended = self.predict_proba(probabilities)
        classes = getattr(self, "classes_", None)
        if classes is None:
            n_classes = blended.shape[1]
            classes = np.arange(n_classes) if self.classes is None else check_classes(self.classes, n_classes)
        return np.asarray(classes[blended.argmax(axis=1)])

    def score(self, probabilities: MemberProbabilities, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy, as every scikit-learn classifier does.

        For the log loss see `lmsys_ensemble.evaluation.evaluate`.

        Parameters are those of `fit`. With soft labels it is the accuracy expected over the annotators.
        """
        blended = self.predict_proba(probabilities)
        fitted = getattr(self, "classes_", None)
        named = self.classes if fitted is None or fitted.dtype.kind not in "US" else fitted
        n_rows, n_classes = blended.shape
        _, labels = parse_class_labels(y, named, n_classes=n_classes, n_rows=n_rows)
        return float(np.average(row_accuracies(labels, blended), weights=check_sample_weight(sample_weight, n_rows)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags
