"""Tables of JSON lines: one object per line. Numbers keep all their digits, and texts are never taken for numbers."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from lmsys_ensemble.data.formats import TableFile, check_beginning
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import ID_COLUMN

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_json_lines(file: TableFile) -> pd.DataFrame:
    """Read one object per line; a key that only other lines have is None.

    Raises
    ------
    InputError
        If a line is no JSON object, or an id cannot be written to any file; names the line.
    """
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    check_beginning(file)
    with file.open() as stream:
        for number, line in enumerate(stream, 1):
            content = line.removeprefix(_BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
            if content:
                row = _parse(content, f"{file.path}, line {number}")
                names.update(dict.fromkeys(row))
                rows.append(row)
    if not rows:
        raise InputError(f"{file.path} is empty, expected one JSON object per line")
    return pd.DataFrame({name: _column([row.get(name) for row in rows]) for name in names})


def encode_json_lines(table: pd.DataFrame) -> bytes:
    """Return a table as one object per line, in UTF-8."""
    names = [str(name) for name in table.columns]
    columns = [table.iloc[:, position].tolist() for position in range(len(names))]
    lines = [
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in zip(*columns, strict=True)
    ]
    return "".join(lines).encode()


def _parse(content: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(content.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: {error}; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON: {error}; expected one object per line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} holds {type(row).__name__}, expected one JSON object per line")
    row_id = row.get(ID_COLUMN)
    if isinstance(row_id, str) and not row_id.isascii():
        try:
            row_id.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{where}: the id {row_id!r} holds half a surrogate pair, which no file can") from error
    return row


def _column(values: Sequence[Any]) -> "pd.Series[Any]":
    column = pd.Series(values, dtype=object)
    if any(value is None for value in values):
        return column  # integers would become floats
    try:
        return column.infer_objects()
    except UnicodeEncodeError:  # lone surrogates, which parse_battles replaces and counts
        return column
