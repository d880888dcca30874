"""Tables of battles, labels and predictions: read from files, with ids and columns checked."""

import csv
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import ID_COLUMN, TEXT_COLUMNS, THREE_WAY, WINNER_COLUMN

MAX_LISTED_FAULTS = 10


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV or Parquet file of battles.

    Texts of a CSV stay texts (an answer that reads ``null`` or ``NA`` is not a missing value), and ids stay strings
    unless all of them are integers written the canonical way, so that ``007`` is not turned into 7.

    Parameters
    ----------
    path : str or Path
        File whose suffix is ``.csv``, ``.parquet`` or ``.pq``.

    Raises
    ------
    InputError
        If there is no such file, its suffix is unknown or its content is not what the suffix says.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    suffix = path.suffix.lower()
    try:
        if suffix in {".parquet", ".pq"}:
            return pd.read_parquet(path)
        if suffix == ".csv":
            csv.field_size_limit(sys.maxsize)
            header = pd.read_csv(path, nrows=0).columns
            as_text = {name: str for name in (ID_COLUMN, *TEXT_COLUMNS, WINNER_COLUMN) if name in header}
            keep: dict[str, list[str]] = {name: [] for name in as_text}
            table = pd.read_csv(path, dtype=as_text, na_values=keep, keep_default_na=False)
            return _with_numbers(table)
    except (ValueError, OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read as {suffix[1:]}: {error}") from error
    raise InputError(f"{path} must end in .csv or .parquet, got {suffix or 'no suffix'!r}")


def _with_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Make numbers of the ids and of the label columns where every cell is one."""
    if ID_COLUMN in table:
        numbers = pd.to_numeric(table[ID_COLUMN], errors="coerce")
        if pd.api.types.is_integer_dtype(numbers) and (numbers.astype(str) == table[ID_COLUMN]).all():
            table[ID_COLUMN] = numbers
    for name in THREE_WAY.columns:
        if name in table:
            table[name] = pd.to_numeric(table[name], errors="coerce")
    return table


def parse_ids(column: "pd.Series[Any]") -> "pd.Index[Any]":
    """Validate ids and return them with the dtype they came with.

    Raises
    ------
    InputError
        If an id is missing, no integer or string, or not unique.
    """
    ids: pd.Index[Any] = pd.Index(column)
    faulty = [
        f"position {i}: {value!r}"
        for i, value in enumerate(column.tolist())
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer | str) or value == ""
    ]
    if faulty:
        raise InputError(
            f"ids must be integers or texts that are not empty; {len(faulty)} are not: "
            f"{', '.join(faulty[:MAX_LISTED_FAULTS])}"
        )
    if len({isinstance(value, str) for value in column}) > 1:
        raise InputError("ids must be all integers or all strings, got a mixture")
    if not ids.is_unique:
        twice = ids[ids.duplicated()].unique().tolist()
        listed = ", ".join(repr(value) for value in twice[:MAX_LISTED_FAULTS])
        raise InputError(f"{len(twice)} ids occur more than once (rows are never merged): {listed}")
    return ids


def require_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise `InputError` if one of the columns is missing or occurs twice; misspelt ones get a suggestion."""
    twice = [name for name in names if (table.columns == name).sum() > 1]
    if twice:
        raise InputError(f"the table has more than one column {', '.join(map(repr, twice))}; keep one of each")
    missing = [name for name in names if name not in table.columns]
    if not missing:
        return
    present = [str(name) for name in table.columns]
    hints = []
    for name in missing:
        close = difflib.get_close_matches(name, present, n=1)
        hints.append(f"{name!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    raise InputError(f"columns are missing: {', '.join(hints)}; the table has {', '.join(present) or 'none'}")
