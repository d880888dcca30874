"""Learning from teachers: what several models say of the rows, and the loss that compares the student with it.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network"; see
`lmsys_ensemble.training.teacher_settings.DistillationSettings` for the formulas.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import xlogy
from torch import Tensor

from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.data.predictions import Predictions, parse_logits, parse_predictions
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import Probabilities, log_probabilities, softmax, swap_order
from lmsys_ensemble.schema import THREE_WAY, Task
from lmsys_ensemble.training.examples import CrossEntropy, Examples, Objective, class_weights
from lmsys_ensemble.training.settings import TrainSettings
from lmsys_ensemble.training.teacher_settings import DistillationSettings, TeacherSettings


@dataclass(frozen=True)
class Teachers:
    """Predictions of several teachers for some rows.

    Attributes
    ----------
    log_probabilities : ndarray of shape (n_rows, n_teachers, n_classes)
        Normalised: the exponentials of a row of a teacher sum to 1. A constant added to a teacher's logits changes
        nothing.
    weights : ndarray of shape (n_teachers,)
        They sum to 1.
    """

    log_probabilities: NDArray[np.float64]
    weights: NDArray[np.float64]

    def swapped(self) -> "Teachers":
        """Return the predictions with the responses swapped."""
        order = list(swap_order(self.log_probabilities.shape[-1]))
        return Teachers(self.log_probabilities[..., order], self.weights)

    def in_both_orders(self) -> "Teachers":
        """Return the rows as they are, then the swapped ones."""
        both = np.concatenate([self.log_probabilities, self.swapped().log_probabilities])
        return Teachers(both, self.weights)

    def probabilities(self, temperature: float) -> NDArray[np.float64]:
        """Return every teacher's probabilities at a temperature, of shape (n_rows, n_teachers, n_classes)."""
        shape = self.log_probabilities.shape
        return softmax(self.log_probabilities.reshape(-1, shape[-1]), temperature).reshape(shape)

    def mean(self, of: str, temperature: float) -> Probabilities:
        """Return the teachers' weighted mean at a temperature, of shape (n_rows, n_classes).

        `of` names what is averaged: ``probabilities``, or ``logits`` before the softmax.
        """
        if of == "probabilities":
            mean: Probabilities = np.einsum("k,nkc->nc", self.weights, self.probabilities(temperature))
            return mean
        return softmax(np.einsum("k,nkc->nc", self.weights, self.log_probabilities), temperature)

    def direction(self, of: str, temperature: float) -> NDArray[np.float64]:
        """Return the weighted mean of the teachers' unit vectors, of shape (n_rows, n_classes).

        Its dot product with a unit vector is the mean of the cosines with each teacher.
        """
        if of == "probabilities":
            said = self.probabilities(temperature)
        else:
            said = self.log_probabilities - self.log_probabilities.mean(axis=-1, keepdims=True)
        lengths = np.linalg.norm(said, axis=-1, keepdims=True)
        units = np.divide(said, lengths, out=np.zeros_like(said), where=lengths > 1e-12)
        direction: NDArray[np.float64] = np.einsum("k,nkc->nc", self.weights, units)
        return direction


class Distillation:
    """Loss on rows that have labels and teachers; an `lmsys_ensemble.training.examples.Objective`.

    Every term of a row is multiplied by the row's weight and the weight of its class, as its cross-entropy is.

    Parameters
    ----------
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft.
    weights : ndarray of shape (n_rows,)
        Weight per row.
    teachers : Teachers
        What they say of the same rows.
    settings : DistillationSettings
        Terms and temperature.
    by_class : ndarray of shape (n_classes,), optional
        Weight per class.
    smoothing : float
        Of the labels in the hard term.
    """

    def __init__(
        self,
        labels: Probabilities,
        weights: NDArray[np.float64],
        teachers: Teachers,
        settings: DistillationSettings,
        by_class: NDArray[np.float64] | None = None,
        smoothing: float = 0.0,
    ):
        self._settings = settings
        self._hard = CrossEntropy(labels, weights, by_class, smoothing)
        of_class = np.ones(labels.shape[1]) if by_class is None else by_class
        mean = teachers.mean(settings.mean, settings.temperature)
        self._weights = _tensor(weights * (labels @ of_class))
        self._mean = _tensor(mean)
        self._negative_entropy = _tensor(xlogy(mean, mean).sum(axis=1))
        self._direction = _tensor(teachers.direction(settings.cosine_of, settings.temperature))

    @property
    def mean_weight(self) -> float:
        """Mean weight of all examples."""
        return self._hard.mean_weight

    def __call__(self, logits: Tensor, pooled: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """Return the sum of the weighted losses of some rows; see `lmsys_ensemble.training.examples.Objective`."""
        terms, temperature = self._settings.terms, self._settings.temperature
        logits, chosen = logits.float(), torch.from_numpy(rows)
        weights = self._weights[chosen].to(logits.device)
        total = terms.hard * self._hard(logits, pooled, rows) if terms.hard else logits.new_zeros(())
        if terms.soft or terms.kl:
            mean = self._mean[chosen].to(logits.device)
            cross = -(mean * torch.log_softmax(logits / temperature, dim=1)).sum(dim=1)
            divergence = cross + self._negative_entropy[chosen].to(logits.device)
            total = total + temperature**2 * (weights * (terms.soft * cross + terms.kl * divergence)).sum()
        if terms.cosine:
            direction = self._direction[chosen].to(logits.device)
            cosine = (torch.nn.functional.normalize(self._compared(logits), dim=1) * direction).sum(dim=1)
            total = total + terms.cosine * (weights * (1 - cosine)).sum()
        return total / terms.total

    def _compared(self, logits: Tensor) -> Tensor:
        if self._settings.cosine_of == "probabilities":
            return torch.softmax(logits / self._settings.temperature, dim=1)
        return logits - logits.mean(dim=1, keepdim=True)


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def recipe_objective(settings: TrainSettings, learn: Labelled) -> Callable[[Examples, Labelled], Objective] | None:
    """Read a recipe's teachers, and return what makes the loss; None for a recipe without teachers.

    Parameters
    ----------
    settings : TrainSettings
        The recipe; teachers' files are paths, see `lmsys_ensemble.training.inputs.locate_inputs`.
    learn : Labelled
        Rows to learn from.

    Raises
    ------
    InputError
        As `read_teachers`.
    """
    chosen = settings.distillation
    if chosen is None:
        return None
    given = read_teachers(chosen, learn, settings.task)
    by_class, smoothing = class_weights(settings.data.class_weights, settings.task), settings.optimizer.label_smoothing
    teachers = given.in_both_orders() if settings.swap_augmentation else given
    return lambda examples, _: Distillation(examples.labels, examples.weights, teachers, chosen, by_class, smoothing)


def read_teachers(settings: DistillationSettings, data: Labelled, task: Task) -> Teachers:
    """Read the teachers' predictions for some rows.

    Parameters
    ----------
    settings : DistillationSettings
        Names the files.
    data : Labelled
        The rows, whose ids the files must have.
    task : Task
        Classes and their order.

    Raises
    ------
    InputError
        If a file cannot be read, its values are not what they are said to be, or rows are missing.
    """
    said = [_take(_read(teacher, task), data.battles.ids) for teacher in settings.teachers]
    weights = np.array([teacher.weight for teacher in settings.teachers])
    return Teachers(np.stack([log_probabilities(values) for values in said], axis=1), weights / weights.sum())


def _read(teacher: TeacherSettings, task: Task) -> Predictions:
    table = read_table(teacher.file)
    beyond = [name for name in THREE_WAY.columns if name in table and name not in task.columns]
    if beyond:
        raise InputError(
            f"the teacher {teacher.file} has a column {', '.join(beyond)}, but the recipe has {task.n_classes} "
            f"classes, {', '.join(task.classes)}. Give a teacher of as many, or set classes: {THREE_WAY.n_classes}"
        )
    parse = parse_logits if teacher.values == "logits" else parse_predictions
    return parse(table, teacher.file, task.columns)


def _take(predictions: Predictions, ids: "pd.Index[Any]") -> Probabilities:
    try:
        return predictions.take(ids, "the rows that are learned from")
    except InputError as error:
        raise InputError(
            f"the teacher {error}. A teacher must cover every row that is learned from: predict the missing ones, "
            "or take them out of the data. Where ids of several data files are equal, a row is called FILE:ID"
        ) from error
