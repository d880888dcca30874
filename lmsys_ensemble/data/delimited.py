"""Tables of comma- or tab-separated values; the fields of every row are counted before the table is read.

Where rows have one field more than the header, pandas takes the first column as an index; short rows it fills up. It
says neither. So fields are counted first, by Python's own reader, which streams and knows quoted line breaks.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import TextIO

import pandas as pd

from lmsys_ensemble.data.formats import SEPARATORS, TableFile, check_beginning
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import ID_COLUMN, TEXT_COLUMNS, THREE_WAY, WINNER_COLUMN

_MAX_LISTED = 5
_MAX_FIELD = 2**31 - 1  # as much as a C long holds everywhere
_OWN_COLUMNS = (ID_COLUMN, *TEXT_COLUMNS, WINNER_COLUMN, *THREE_WAY.columns)
_BLANK = " \t\r\n"  # what pandas takes a line of for blank; a quoted "" is a field
_SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def read_delimited(file: TableFile) -> pd.DataFrame:
    """Read a file whose rows all have the header's number of fields.

    The columns of ids and texts come as texts, whatever they look like.

    Raises
    ------
    InputError
        If rows are longer or shorter than the header, a quote is not closed, a needed column occurs twice, or the
        file is not UTF-8; names lines.
    """
    separator = SEPARATORS[file.format.kind]
    header = check_rows(file, separator)
    as_text = {name: str for name in (ID_COLUMN, *TEXT_COLUMNS, WINNER_COLUMN) if name in header}
    with file.open() as stream:
        return pd.read_csv(
            stream,
            sep=separator,
            dtype=as_text,
            na_values={name: [] for name in as_text},
            keep_default_na=False,
            low_memory=False,  # or a column is typed in pieces, and the group 5 is another than the group "5"
        )


def check_rows(file: TableFile, separator: str) -> list[str]:
    """Count the fields of every row and return the header's names; parameters and errors as in `read_delimited`."""
    csv.field_size_limit(_MAX_FIELD)
    check_beginning(file)
    with file.open() as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        reader = _Rows(text, separator)
        try:
            header = next((row for _, row in reader if row), None)
            if header is None:
                raise InputError(f"{file.path} is empty, expected a header and rows")
            _check_header(file, header, separator)
            _check_widths(file, header, reader)
        except UnicodeDecodeError as error:
            raise InputError(_not_utf8(file)) from error
        except _AmbiguousRow as error:
            raise InputError(f"{file.path}, {error}") from error
        except csv.Error as error:
            raise InputError(f"{file.path}, the row that begins in line {reader.line}: {_explained(error)}") from error
    return header


class _AmbiguousRow(Exception):
    """A row that pandas reads in another way than others do."""


class _Rows:
    """Rows with the number of the line in which they begin, the first being 1; blank lines are empty rows."""

    def __init__(self, text: TextIO, separator: str):
        self._text, self._separator = text, separator
        self._lines: list[str] = []
        self._reader = csv.reader(self._read_lines(), delimiter=separator, strict=True)
        self.line = 1

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        after_bare = False
        for row in self._reader:
            line, self.line = self.line, self._reader.line_num + 1
            is_blank = len(row) < 2 and not "".join(self._lines).strip(_BLANK)
            if after_bare and self._lines[0].startswith(self._separator):  # pandas would drop the field
                raise _AmbiguousRow(
                    f"line {line} begins with an empty field, and the blank line before it ends in a carriage return "
                    "alone, which is read in different ways; delete the blank line, or save the file with line feeds"
                )
            after_bare = is_blank and self._lines[-1:] != [] and self._lines[-1].endswith("\r")
            self._lines.clear()
            yield line, [] if is_blank else row

    def _read_lines(self) -> Iterator[str]:
        for line in self._text:
            self._lines.append(line)
            yield line


def _check_header(file: TableFile, header: list[str], separator: str) -> None:
    if len(header) == 1:
        counts = Counter(character for character in header[0] if character in _SEPARATOR_NAMES)
        if counts:
            found = counts.most_common(1)[0][0]
            cure = "name it .tsv" if found == "\t" else "name it .csv" if found == "," else "save it with commas"
            raise InputError(
                f"{file.path}, line 1: the fields are separated by {_SEPARATOR_NAMES[found]}, expected "
                f"{_SEPARATOR_NAMES[separator]}; {cure}, or pass pandas.read_csv(..., sep={found!r}) from Python"
            )
    twice = [name for name in _OWN_COLUMNS if header.count(name) > 1]
    if twice:
        raise InputError(f"{file.path}, line 1: more than one column {', '.join(map(repr, twice))}; keep one of each")


def _check_widths(file: TableFile, header: list[str], rows: _Rows) -> None:
    width, n_faulty, trailing = len(header), 0, True
    listed: list[str] = []
    for line, row in rows:
        if len(row) == width or not row:
            continue
        n_faulty += 1
        trailing = trailing and len(row) == width + 1 and not row[-1]
        if len(listed) < _MAX_LISTED:
            listed.append(f"line {line} (which begins with {_shortened(row[0])}) has {len(row)}")
    if n_faulty:
        more = f", and {n_faulty - len(listed):,} more" if n_faulty > len(listed) else ""
        cure = (
            "They end in a separator too many: remove it there, or end the header with one, too"
            if trailing
            else "A field that holds a separator, a quote or a line break must stand in double quotes"
        )
        raise InputError(
            f"{file.path}: rows must have {width} fields like the header ({_shortened(', '.join(header), 100)}); "
            f"{', '.join(listed)}{more}. {cure}"
        )


def _not_utf8(file: TableFile) -> str:
    """Say where a file is not UTF-8."""
    with file.open() as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                around = line[max(error.start - 15, 0) : error.start + 15].decode("latin-1")
                return (
                    f"{file.path}, line {number}, byte {error.start + 1}: {line[error.start]:#04x} in {around!r} is "
                    "no UTF-8; the file may be Latin-1 (Windows-1252). Save it as UTF-8, or pass "
                    "pandas.read_csv(..., encoding='cp1252') from Python"
                )
    return f"{file.path} is no UTF-8; save it as UTF-8"


def _explained(error: csv.Error) -> str:
    if "end of data" in str(error):
        return "a field's opening quote has no closing one to the end of the file"
    if "expected after" in str(error):
        return "text follows a closing quote; quotes within a quoted field must be doubled"
    return str(error)


def _shortened(text: str, length: int = 30) -> str:
    return repr(text if len(text) <= length else f"{text[:length]}…")
