"""Scorer of probabilities that somebody else has computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from lmsys_ensemble.battles import MAX_LISTED_FAULTS, Battles, parse_ids, read_table
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import Logits, check_probabilities, log_probabilities
from lmsys_ensemble.schema import ID_COLUMN
from lmsys_ensemble.scorers.base import Scorer


class SavedScorer(Scorer):
    """Probabilities from a CSV or Parquet file, aligned by id, never by position.

    Parameters
    ----------
    path : str
        File with a column ``id`` and one column a class.
    columns : sequence of str, optional
        The columns of the classes, in order; by default those of a submission (``winner_model_a``...).
    name : str, optional
        What errors and tables call it; by default the file's name.
    """

    path_settings: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(self, path: str, *, columns: Sequence[str] | None = None, name: str | None = None):
        self.path = path
        self.columns = columns
        self.name = name or Path(path).stem
        self._logits: pd.DataFrame | None = None

    def load(self, device: str | None = None) -> None:
        """Read the file.

        Raises
        ------
        InputError
            If it cannot be read, lacks columns, or holds no probabilities.
        """
        table = read_table(self.path)
        columns = list(self.columns or self.task.columns)
        missing = [name for name in (ID_COLUMN, *columns) if name not in table]
        if missing:
            raise InputError(
                f"{self.path} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table.columns))}"
            )
        ids = parse_ids(table[ID_COLUMN])
        probabilities = check_probabilities(
            table[columns].to_numpy(), n_classes=self.task.n_classes, name=f"probabilities of {self.path}"
        )
        self._logits = pd.DataFrame(log_probabilities(probabilities).astype(np.float32), index=ids)

    def score(self, battles: Battles) -> Logits:
        """Return logarithms of the probabilities, of shape (n_rows, n_classes).

        Raises
        ------
        InputError
            If an id is not in the file.
        """
        if self._logits is None:
            self.load()
        table = self._logits
        if table is None:  # pragma: no cover - load sets it or raises
            raise InputError(f"{self.path} could not be loaded")
        positions = table.index.get_indexer(battles.ids)
        missing = battles.ids[positions < 0].tolist()
        if missing:
            listed = ", ".join(map(repr, missing[:MAX_LISTED_FAULTS]))
            raise InputError(
                f"{self.path} has no probabilities for {len(missing)} of {len(battles)} ids: {listed}. "
                f"Its ids are {table.index.dtype}, those of the battles {battles.ids.dtype}"
            )
        self.progress.advance(len(battles), 0)
        result: Logits = table.to_numpy(dtype=np.float32)[positions]
        return result

    def close(self) -> None:
        """Forget the file's content."""
        self._logits = None
