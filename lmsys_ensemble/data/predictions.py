"""Predictions and labels in files: read, checked, and brought together by id, never by position."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmsys_ensemble.data.formats import without_suffix
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.tables import MAX_LISTED_FAULTS, parse_groups, parse_ids, read_table
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.notices import warn
from lmsys_ensemble.probabilities import (
    ROUNDING_TOLERANCE,
    Probabilities,
    check_probabilities,
    rows_not_finite,
    softmax,
)
from lmsys_ensemble.schema import GROUP_COLUMN, ID_COLUMN, THREE_WAY, WINNER_COLUMN, Task

FEWEST_ROWS, LEAST_WINNERS = 10, 0.01
"""Rows from which on labels are told of which a smaller share than this has a winner: fewer may be so by chance."""


class SoftLabelsWarning(UserWarning):
    """Labels of which hardly a row has a winner; they may be predictions."""


def count_winners(labels: Probabilities) -> int:
    """Return the number of rows of labels, of shape (n_rows, n_classes), that are one-hot."""
    return int((labels.max(axis=1, initial=0) >= 1 - 1e-6).sum())


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities of one system.

    Attributes
    ----------
    source : str
        Where they come from, for errors.
    ids : pandas.Index
        Unique ids with the dtype they came with.
    probabilities : ndarray of shape (n_rows, n_classes)
        Rows sum to 1.
    """

    source: str
    ids: "pd.Index[Any]"
    probabilities: Probabilities

    def take(self, ids: "pd.Index[Any]", wanted_by: str = "the battles") -> Probabilities:
        """Return the rows of `ids`, in that order.

        Parameters
        ----------
        ids : pandas.Index
            Wanted ids.
        wanted_by : str
            Whose ids they are, for the error.

        Returns
        -------
        ndarray of shape (len(ids), n_classes)

        Raises
        ------
        InputError
            If ids are missing; lists up to ten.
        """
        positions = locate(ids, self.ids, f"{self.source} has no probabilities", wanted_by)
        result: Probabilities = self.probabilities[positions]
        return result


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of a file.

    Attributes
    ----------
    ids : pandas.Index
        Unique ids with the dtype they came with.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft.
    groups : Series or None
        Per row, its group, where there is such a column.
    """

    ids: "pd.Index[Any]"
    labels: Probabilities
    groups: "pd.Series[Any] | None"


def locate(ids: "pd.Index[Any]", among: "pd.Index[Any]", complaint: str, wanted_by: str) -> NDArray[np.intp]:
    """Find the positions of `ids` in `among`.

    Parameters
    ----------
    ids, among : pandas.Index
        Wanted ids, and unique ids to look in.
    complaint : str
        Beginning of the error, e.g. "a.csv has no probabilities".
    wanted_by : str
        Whose ids `ids` are.

    Returns
    -------
    ndarray of shape (len(ids),)

    Raises
    ------
    InputError
        If ids are missing; lists up to ten, and the kinds of both where they differ (7 is not "7").
    """
    positions = among.get_indexer(ids)
    missing = ids[positions < 0].tolist()
    if missing:
        listed = ", ".join(map(repr, missing[:MAX_LISTED_FAULTS]))
        more = ", …" if len(missing) > MAX_LISTED_FAULTS else ""
        raise InputError(
            f"{complaint} for {len(missing)} of {len(ids)} ids: {listed}{more}. "
            f"Its ids are {among.dtype}, those of {wanted_by} {ids.dtype}"
        )
    return positions


def read_predictions(path: str | Path, columns: Sequence[str] = THREE_WAY.columns) -> Predictions:
    """Read a file (CSV, Parquet or another; see `read_table`) with the column ``id`` and one column per class.

    Raises
    ------
    InputError
        If it cannot be read, lacks columns, ids are missing or duplicated, or rows are no probabilities.
    """
    return parse_predictions(read_table(path), path, columns)


def parse_predictions(table: pd.DataFrame, source: str | Path, columns: Sequence[str]) -> Predictions:
    """Check a table as `read_predictions` does; `source` is what errors call it."""
    ids = _ids(table, source, columns)
    values = check_probabilities(table[list(columns)].to_numpy(), name=f"probabilities of {source}")
    return Predictions(str(source), ids, values)


def parse_logits(table: pd.DataFrame, source: str | Path, columns: Sequence[str]) -> Predictions:
    """Return the softmax of a table of logits; parameters as for `parse_predictions`.

    Raises
    ------
    InputError
        If columns are missing, ids are missing or duplicated, a logit is not finite, or these are probabilities.
    """
    ids = _ids(table, source, columns)
    values = table[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    wrong = rows_not_finite(values)
    if len(wrong):
        raise InputError(
            f"logits of {source}: {len(wrong)} of {len(values)} rows are not finite: row {wrong[0]}, "
            f"id {ids.tolist()[wrong[0]]!r}"
        )
    if len(values) > 1 and (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=ROUNDING_TOLERANCE):
        raise InputError(f"{source} is said to hold logits, but every row sums to 1 as probabilities do")
    return Predictions(str(source), ids, softmax(values))


def read_labels(path: str | Path, task: Task = THREE_WAY, groups: str | None = None) -> Labels:
    """Read a file (CSV, Parquet or another; see `read_table`) with the column ``id`` and labels.

    Parameters
    ----------
    path : str or Path
        The file; see `lmsys_ensemble.parse_labels` for the labels' columns.
    task : Task
        Classes and their order.
    groups : str, optional
        Column of the groups; by default ``group``, where there is one.

    Raises
    ------
    InputError
        If it cannot be read, there are no ids or labels, it holds the out-of-fold predictions of a training, or the
        column of the groups is not there or has blanks.

    Warns
    -----
    SoftLabelsWarning
        If hardly a row has a winner, as in a file of predictions.
    """
    table = read_table(path)
    ids = _ids(table, path, ())
    _refuse_out_of_fold(table, path, task)
    try:
        labels = parse_labels(table, task)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    n_winners = count_winners(labels)
    if len(labels) >= FEWEST_ROWS and n_winners < LEAST_WINNERS * len(labels):
        warn(
            f"{n_winners} of {len(labels)} rows of {path} have a winner: labels are shares, as predictions are. If "
            f"these are predictions, give the file of labels instead ({WINNER_COLUMN!r}, or 1 in one of "
            f"{', '.join(task.columns)}); if they are soft labels, all is well",
            SoftLabelsWarning,
        )
    if groups is not None and groups not in table:
        raise InputError(f"{path} has no column {groups!r}; it has {', '.join(map(str, table.columns))}")
    try:
        return Labels(ids, labels, parse_groups(table, groups or GROUP_COLUMN))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _refuse_out_of_fold(table: pd.DataFrame, path: str | Path, task: Task) -> None:
    """Raise `InputError` if a table has predictions where labels are looked for, and its labels elsewhere."""
    beside = [f"label_{name}" for name in task.classes]
    if {*beside, *task.columns} <= set(table):
        raise InputError(
            f"{path} holds out-of-fold predictions: {', '.join(task.columns)} are probabilities, and its labels are in "
            f"{', '.join(beside)}. Give the file labels.parquet, which lies beside it"
        )


def name_files(paths: Sequence[str | Path]) -> list[str]:
    """Give every file a short name that no other has.

    >>> name_files(["run1/oof.csv", "run2/oof.csv", "gemma.csv"])
    ['run1/oof', 'run2/oof', 'gemma']
    """
    longer = [without_suffix(path).as_posix() for path in paths]
    short = [Path(path).name for path in longer]
    names = [long if short.count(name) > 1 else name for name, long in zip(short, longer, strict=True)]
    return [
        f"{name} ({names[:position].count(name) + 1})" if names.count(name) > 1 else name
        for position, name in enumerate(names)
    ]


def _ids(table: pd.DataFrame, path: str | Path, columns: Sequence[str]) -> "pd.Index[Any]":
    missing = [name for name in (ID_COLUMN, *columns) if name not in table]
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    try:
        return parse_ids(table[ID_COLUMN])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
