"""Labelled battles of several origins in one table, which says where every row came from."""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.frames import TableLike, as_frame
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.schema import ID_COLUMN, TEXT_COLUMNS, THREE_WAY, TWO_WAY, WINNER_COLUMN

SOURCE_COLUMN = "source"
KEPT_COLUMNS = ("group", "language", "model_a", "model_b")
"""Columns beside texts and labels that merged tables keep."""


def labelled_table(battles: Battles, labels: Probabilities, source: str) -> pd.DataFrame:
    """Return battles with labels in the library's own columns.

    Texts are JSON lists of turns. Labels of two classes get a column of zeros for ties, so that tables with and
    without ties can stand below each other.
    """
    table = _with_texts(pd.DataFrame({ID_COLUMN: battles.ids}), battles)
    table[list(THREE_WAY.columns)] = np.pad(labels, ((0, 0), (0, THREE_WAY.n_classes - labels.shape[1])))
    return table.assign(**{SOURCE_COLUMN: source})


def merge_sources(tables: Mapping[str, TableLike]) -> pd.DataFrame:
    """Put labelled battles of several origins below each other.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Labelled battles by the name of their source; every table may hold its texts and labels in a way of its own
        (see `lmsys_ensemble.parse_battles`, `lmsys_ensemble.parse_labels`).

    Returns
    -------
    DataFrame
        With the columns ``id``, the texts as JSON lists of turns, the labels, ``source`` (as it was where a table
        has that column, else the table's name), and those of `KEPT_COLUMNS` that a table has. Where ids of different
        tables are equal or of different kinds, all become ``name:id``.

    Raises
    ------
    InputError
        If a table cannot be used; names it.

    Examples
    --------
    >>> merged = merge_sources({"arena": "train.csv", "mine": table})  # doctest: +SKIP
    """
    parts = {name: _part(name, table) for name, table in tables.items()}
    if not parts:
        raise InputError("there is nothing to merge; give at least one table")
    ids = [row_id for part in parts.values() for row_id in part[ID_COLUMN].tolist()]
    if len(set(ids)) < len(ids) or len({isinstance(row_id, str) for row_id in ids}) > 1:
        for name, part in parts.items():
            part[ID_COLUMN] = [f"{name}:{row_id}" for row_id in part[ID_COLUMN].tolist()]
    return pd.concat(parts.values(), ignore_index=True)


def with_json_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of battles whose texts are JSON lists of turns, which every format of files can hold.

    Raises
    ------
    InputError
        If the battles cannot be read.
    """
    return _with_texts(table, parse_battles(table))


def _part(name: str, table: TableLike) -> pd.DataFrame:
    frame = as_frame(table)
    try:
        battles = parse_battles(frame)
        has_ties = WINNER_COLUMN in frame or THREE_WAY.columns[-1] in frame
        part = labelled_table(battles, parse_labels(frame, THREE_WAY if has_ties else TWO_WAY), name)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    if SOURCE_COLUMN in frame:
        part[SOURCE_COLUMN] = [name if pd.isna(value) or value == "" else str(value) for value in frame[SOURCE_COLUMN]]
    for column in KEPT_COLUMNS:
        if column in frame:
            part[column] = [None if pd.isna(value) or value == "" else str(value) for value in frame[column]]
    return part


def _with_texts(table: pd.DataFrame, battles: Battles) -> pd.DataFrame:
    columns = zip(TEXT_COLUMNS, (battles.prompts, battles.responses_a, battles.responses_b), strict=True)
    return table.assign(
        **{name: [json.dumps(turns, ensure_ascii=False) for turns in column] for name, column in columns}
    )
