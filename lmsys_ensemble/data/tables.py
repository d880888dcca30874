"""Tables of battles, labels and predictions: read from files, with ids and columns checked."""

import csv
import difflib
import gzip
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from lmsys_ensemble.data.delimited import read_delimited
from lmsys_ensemble.data.formats import SEPARATORS, TableFile, TableFormat, find_table, table_format
from lmsys_ensemble.data.json_lines import encode_json_lines, read_json_lines
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import GROUP_COLUMN, ID_COLUMN, THREE_WAY

MAX_LISTED_FAULTS = 10


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a file of battles, labels or predictions.

    Texts of a CSV stay texts (an answer that reads ``null`` or ``NA`` is not a missing value), and ids stay strings
    unless all of them are integers written the canonical way, so that ``007`` is not turned into 7. Every row must
    have as many fields as the header.

    Parameters
    ----------
    path : str or Path
        File whose name ends in ``.csv``, ``.tsv`` or ``.jsonl`` (each also with ``.gz``), ``.parquet`` or ``.pq``.
        A pipe or ``/dev/stdin`` is read once, and known by its first bytes where it has no such name.

    Raises
    ------
    InputError
        If there is no such file, its suffix is unknown or its content is not what the suffix says; names lines.
    """
    file = find_table(path)
    try:
        return _read(file)
    except InputError:
        raise
    except (ValueError, OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read as {file.format.kind}: {error}") from error


def _read(file: TableFile) -> pd.DataFrame:
    if file.format.kind == "parquet":
        with file.open() as stream:
            return pd.read_parquet(stream)
    if file.format.kind == "jsonl":
        return read_json_lines(file)
    return _with_numbers(read_delimited(file))


def encode_table(table: pd.DataFrame, path: str | Path) -> bytes:
    """Return the bytes of a table in the format that a name says, with all digits of its numbers; by default CSV.

    The same table and name always give the same bytes.
    """
    wanted = table_format(path) or TableFormat("csv")
    if wanted.kind == "parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return buffer.getvalue()
    if wanted.kind == "jsonl":
        content = encode_json_lines(table)
    else:
        content = _delimited(table, SEPARATORS[wanted.kind]).encode()
    return gzip.compress(content, mtime=0) if wanted.packed else content


def _delimited(table: pd.DataFrame, separator: str) -> str:
    # A bare carriage return ends a row for many readers, and is not quoted by itself.
    bare = any("\r" in value for column in table for value in table[column].tolist() if isinstance(value, str))
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
    return table.to_csv(index=False, sep=separator, quoting=quoting, lineterminator="\n")


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
        If an id is missing, no integer or string, not unique, or holds control characters or line breaks.
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
    unprintable = [
        f"position {i}: {value!r}"
        for i, value in enumerate(column.tolist())
        if isinstance(value, str) and not value.isprintable() and any(map(_is_control, value))
    ]
    if unprintable:
        raise InputError(
            f"ids must not hold control characters or line breaks; {len(unprintable)} do: "
            f"{', '.join(unprintable[:MAX_LISTED_FAULTS])}"
        )
    if len({isinstance(value, str) for value in column}) > 1:
        raise InputError("ids must be all integers or all strings, got a mixture")
    if not ids.is_unique:
        twice = ids[ids.duplicated()].unique().tolist()
        listed = ", ".join(repr(value) for value in twice[:MAX_LISTED_FAULTS])
        raise InputError(f"{len(twice)} ids occur more than once (rows are never merged): {listed}")
    return ids


def parse_groups(table: pd.DataFrame, column: str = GROUP_COLUMN) -> "pd.Series[Any] | None":
    """Return the group of each row; None where the table has no such column.

    Raises
    ------
    InputError
        If a row has no group (None, NaN, a blank text), or the column occurs twice.
    """
    if column not in table:
        return None
    require_columns(table, [column])
    groups = table[column]
    texts = [isinstance(value, str) and not value.strip() for value in groups.tolist()]
    blank = groups.isna().to_numpy(dtype=bool) | np.array(texts, dtype=bool)
    if blank.any():
        first = int(np.flatnonzero(blank)[0])
        raise InputError(
            f"column {column!r} says which rows belong together: {int(blank.sum())} of {len(groups)} rows have no "
            f"group there, the first is row {first} (counted from 0). Give every row one, if only its own"
        )
    return groups


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Zl", "Zp"}


def require_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise `InputError` if one of the columns is missing or occurs twice; misspelt ones get a suggestion."""
    twice = [name for name in names if (table.columns == name).sum() > 1]
    if twice:
        raise InputError(f"the table has more than one column {', '.join(map(repr, twice))}; keep one of each")
    missing = [name for name in names if name not in table.columns]
    if not missing:
        return
    present = [str(name) for name in table.columns]
    unused = [name for name in present if name not in names]
    hints = []
    for name in missing:
        close = difflib.get_close_matches(name, unused, n=1)
        hints.append(f"{name!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    raise InputError(f"columns are missing: {', '.join(hints)}; the table has {', '.join(present) or 'none'}")
