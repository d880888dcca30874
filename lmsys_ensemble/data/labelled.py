"""Labelled battles, as fitting and measuring take them: battles, labels, groups, and columns to slice by."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.frames import TableLike, as_frame
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.languages import COMPUTED, column_of
from lmsys_ensemble.data.tables import parse_groups
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.schema import THREE_WAY, Task


@dataclass(frozen=True, eq=False)
class LabelledBattles:
    """Battles with labels.

    Attributes
    ----------
    table : DataFrame
        What the rest was read from.
    battles : Battles
        The rows.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft.
    groups : Series or None
        Per row, its group, where the table has such a column.
    """

    table: pd.DataFrame
    battles: Battles
    labels: Probabilities
    groups: "pd.Series[Any] | None"

    def slices(self, by: str | None) -> pd.DataFrame | None:
        """Return the column whose values are measured apart, as a DataFrame.

        ``language`` and ``script`` are told from the texts where the table has no such column; see
        `lmsys_ensemble.data.languages.column_of`.

        Raises
        ------
        InputError
            If it is not there.
        MissingDependencyError
            If the language is to be told, and the package for it is not installed.
        """
        if by is None:
            return None
        if by not in self.table and by in COMPUTED:
            return pd.DataFrame({by: column_of(self.battles, by)})
        if by not in self.table:
            listed = ", ".join(map(str, self.table))
            raise InputError(f"there is no column {by!r} to evaluate by; the table has {listed}")
        return self.table[[by]]


def parse_labelled(table: TableLike, task: Task = THREE_WAY) -> LabelledBattles:
    """Read labelled battles.

    Parameters
    ----------
    table : DataFrame, path or table of another library
        With the columns that `lmsys_ensemble.parse_battles` and `lmsys_ensemble.parse_labels` take. A column ``group``,
        where there is one, says which rows share a prompt.
    task : Task
        Classes and their order.

    Raises
    ------
    InputError
        If battles, labels or groups cannot be used, or the table is `Battles`, which have no labels.
    """
    if isinstance(table, Battles):
        raise InputError("Battles hold no labels; pass the table that they were made of")
    table = as_frame(table)
    return LabelledBattles(table, parse_battles(table), parse_labels(table, task), parse_groups(table))
