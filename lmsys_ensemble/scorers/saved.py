"""Scorer of probabilities that somebody else has computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.data.predictions import Predictions, read_predictions
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.files import sha256_of
from lmsys_ensemble.probabilities import Logits, log_probabilities
from lmsys_ensemble.schema import Task, task_of
from lmsys_ensemble.scorers.base import Scorer


class SavedScorer(Scorer):
    """Probabilities from a CSV or Parquet file, aligned by id, never by position.

    Parameters
    ----------
    path : str
        File with a column ``id`` and one column per class.
    columns : sequence of str, optional
        The columns of the classes, in order; by default those of a submission (``winner_model_a``...).
    n_classes : int
        3 (A, B, tie) or 2 (A, B).
    name : str, optional
        What errors and tables call it; by default the file's name.
    """

    reads_texts: ClassVar[bool] = False
    path_settings: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(self, path: str, *, columns: Sequence[str] | None = None, n_classes: int = 3, name: str | None = None):
        self.path = path
        self.columns = columns
        self.n_classes = n_classes
        self.name = name or Path(path).stem
        self._predictions: Predictions | None = None

    @property
    def task(self) -> Task:  # type: ignore[override]
        """Classes, in the order of the logits' columns."""
        return task_of(self.n_classes)

    def check(self, battles: Battles | None = None) -> None:
        """Read the file, as `load` does (it is small beside a model), and look the battles' ids up.

        Raises
        ------
        InputError
            If it cannot be read, lacks columns or ids, or holds no probabilities.
        """
        predictions = self._predictions or self._read()
        if battles is not None:
            predictions.take(battles.ids)

    def load(self, device: str | None = None) -> None:
        """Read the file.

        Raises
        ------
        InputError
            If it cannot be read, lacks columns, or holds no probabilities.
        """
        self._predictions = self._read()

    def _read(self) -> Predictions:
        columns = tuple(self.columns or self.task.columns)
        if len(columns) != self.task.n_classes:
            raise InputError(f"{self.path}: got {len(columns)} columns, expected {self.task.n_classes} (one per class)")
        return read_predictions(self.path, columns)

    def score(self, battles: Battles) -> Logits:
        """Return logarithms of the probabilities, of shape (n_rows, n_classes).

        Raises
        ------
        InputError
            If an id is not in the file.
        """
        if self._predictions is None:
            self.load()
        predictions = self._predictions
        if predictions is None:  # pragma: no cover - load sets it or raises
            raise InputError(f"{self.path} could not be loaded")
        probabilities = predictions.take(battles.ids)
        self.progress.advance(len(battles), 0)
        result: Logits = log_probabilities(probabilities).astype(np.float32)
        return result

    def fingerprint(self) -> dict[str, Any]:
        """Return the file's hash and the columns that are read; where it lies and what it is called change nothing.

        Raises
        ------
        InputError
            If the file is not there.
        """
        if not Path(self.path).is_file():
            raise InputError(f"there is no file {self.path}")
        return {
            "class": f"{type(self).__module__}:{type(self).__qualname__}",
            "sha256": sha256_of(self.path),
            "columns": list(self.columns or self.task.columns),
            "n_classes": self.n_classes,
        }

    def close(self) -> None:
        """Forget the file's content."""
        self._predictions = None
