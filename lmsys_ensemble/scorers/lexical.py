"""Scorer of what can be counted."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.lexical.boosting import import_lightgbm
from lmsys_ensemble.lexical.features import CHUNK_ROWS, read_texts
from lmsys_ensemble.lexical.files import LexicalRecord, load_model, read_record
from lmsys_ensemble.lexical.model import LexicalModel
from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.schema import Task
from lmsys_ensemble.scorers.base import Scorer


class LexicalScorer(Scorer):
    """Length, format, refusals, overlap, script and words of the responses, weighed by a fitted model.

    It needs no GPU and no language model, and scores hundreds of rows a second. Swapping the responses swaps its
    probabilities exactly. `lmsys_ensemble.training.fit_lexical` and ``lmsys-ensemble fit-lexical`` fit one.

    Parameters
    ----------
    path : str
        Folder of a fitted model.
    name : str, optional
        What errors and tables call it; by default the folder's name.

    Examples
    --------
    >>> scorer = LexicalScorer("lexical")  # doctest: +SKIP
    >>> scorer.importances().head()  # doctest: +SKIP
    """

    path_settings: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(self, path: str, *, name: str | None = None):
        self.path = path
        self.name = name or Path(path).name or "lexical"
        self._model: LexicalModel | None = None

    @property
    def task(self) -> Task:  # type: ignore[override]
        """Classes, in the order of the logits' columns.

        Raises
        ------
        ConfigError
            If the folder holds no model.
        """
        return read_record(Path(self.path), verify=False).task

    def check(self, battles: Battles | None = None) -> None:
        """Compare the folder's files with their digests, and look for lightgbm where the model has trees.

        Raises
        ------
        ConfigError, IntegrityError, MissingDependencyError
            If something is missing or wrong.
        """
        if self._record().has_trees:
            import_lightgbm()

    def _record(self) -> LexicalRecord:
        return read_record(Path(self.path))

    def load(self, device: str | None = None) -> None:
        """Load the model and check its golden rows; see `lmsys_ensemble.lexical.files.load_model`."""
        self._model = load_model(Path(self.path))

    def score(self, battles: Battles) -> Logits:
        """Return logits of shape (n_rows, n_classes)."""
        model = self._loaded()
        parts = [np.empty((0, model.n_classes), dtype=np.float32)]
        for start in range(0, len(battles), CHUNK_ROWS):
            part = battles[start : start + CHUNK_ROWS]
            parts.append(model.logits(read_texts(part)))
            self.progress.advance(len(part), 0)
        return np.concatenate(parts)

    def importances(self) -> pd.DataFrame:
        """Return the features with what they count, the heaviest first; see `LexicalModel.importances`."""
        return self._loaded().importances()

    def _loaded(self) -> LexicalModel:
        if self._model is None:
            self._model = load_model(Path(self.path))
        return self._model

    def fingerprint(self) -> dict[str, Any]:
        """Return digests of the model's files; where it lies and what it is called change nothing."""
        record = self._record()
        return {
            "class": f"{type(self).__module__}:{type(self).__qualname__}",
            "features_version": record.features_version,
            "classes": record.task.n_classes,
            "tie_bias": record.tie_bias,
            "files": dict(sorted(record.files.items())),
        }

    def close(self) -> None:
        """Forget the model."""
        self._model = None
