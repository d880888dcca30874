"""What a model learns from: token sequences with labels and weights, and the loss on them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.schema import Task
from lmsys_ensemble.training.settings import DataSettings


@dataclass(frozen=True)
class Examples:
    """Sequences, soft labels of shape (n_rows, n_classes), and a weight per row."""

    encoded: Encoded
    labels: Probabilities
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)


class Objective(Protocol):
    """A loss over rows, known by their positions among the examples.

    A step minimises the sum of the weighted losses of its rows over their number times `mean_weight`, however the rows
    are divided into batches and over processes. A row of weight 2 thus counts twice as much as one of weight 1,
    whichever rows they share a step with.
    """

    @property
    def mean_weight(self) -> float:
        """Mean weight of all examples."""

    def __call__(self, logits: Tensor, pooled: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """Return the sum of the weighted losses of some rows.

        Parameters
        ----------
        logits : Tensor of shape (n_rows, n_classes), float32
            What the model says.
        pooled : Tensor of shape (n_rows, pooled size), float32
            What its head was given.
        rows : ndarray of shape (n_rows,)
            Which rows these are.
        """


class CrossEntropy:
    """Cross-entropy with soft labels, weights of rows and classes, and label smoothing.

    With hard labels and no smoothing, the sum over all rows is that of ``torch.nn.CrossEntropyLoss(class_weights,
    reduction="sum")``. What smoothing spreads over the classes weighs what the row's own label does (torch weighs it by
    the class that it falls to), so that a row of weight 0 teaches nothing.

    Parameters
    ----------
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft.
    weights : ndarray of shape (n_rows,)
        Weight per row.
    class_weights : ndarray of shape (n_classes,), optional
        Weight per class.
    smoothing : float
        Share of every label that is spread evenly over the classes.
    """

    def __init__(
        self,
        labels: Probabilities,
        weights: NDArray[np.float64],
        class_weights: NDArray[np.float64] | None = None,
        smoothing: float = 0.0,
    ):
        n_classes = labels.shape[1]
        by_class = np.ones(n_classes) if class_weights is None else class_weights
        self._weights = weights * (labels @ by_class)
        spread = smoothing / n_classes * self._weights[:, None]
        targets = (1 - smoothing) * weights[:, None] * by_class * labels + spread
        self._targets = torch.from_numpy(targets.astype(np.float32))

    @property
    def mean_weight(self) -> float:
        """Mean weight of all examples."""
        return float(self._weights.mean())

    def __call__(self, logits: Tensor, pooled: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """Return the sum of the weighted losses of some rows; see `Objective`."""
        targets = self._targets[torch.from_numpy(rows)].to(logits.device)
        return -(targets * torch.log_softmax(logits.float(), dim=1)).sum()


def row_weights(data: Labelled, settings: DataSettings) -> NDArray[np.float64]:
    """Return the weight of every row: the weight of its source times n ** -frequency_penalty, n rows having its prompt.

    Parameters
    ----------
    data : Labelled
        Rows to learn from.
    settings : DataSettings
        ``weights`` and ``frequency_penalty``.

    Returns
    -------
    ndarray of shape (n_rows,)
    """
    counts = Counter(data.groups.astype(str))
    by_source = np.array([settings.weights.get(source, 1.0) for source in data.sources], dtype=np.float64)
    often = np.array([counts[str(group)] for group in data.groups], dtype=np.float64)
    weights: NDArray[np.float64] = by_source * often**-settings.frequency_penalty
    return weights


def class_weights(named: Mapping[str, float], task: Task) -> NDArray[np.float64]:
    """Return the weight of every class, 1 for those that have none."""
    return np.array([named.get(name, 1.0) for name in task.classes], dtype=np.float64)
