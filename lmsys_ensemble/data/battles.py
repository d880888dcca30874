"""Battles: a prompt and two responses, each a sequence of turns, as they come in tables of many shapes.

Whether a text column holds JSON lists, real lists or plain strings is decided once for the whole column, never
row by row, so that a text which happens to look like a list is not taken for one. JSON is read by ``json.loads``;
nothing is ever evaluated.
"""

import hashlib
import json
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmsys_ensemble.data.frames import TableLike, as_frame
from lmsys_ensemble.data.tables import MAX_LISTED_FAULTS, parse_ids, require_columns
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import ID_COLUMN, TEXT_COLUMNS

Turns: TypeAlias = tuple[str, ...]
TextFormat: TypeAlias = Literal["auto", "json", "list", "plain"]


@dataclass(frozen=True, slots=True)
class Battle:
    """One prompt and two responses.

    Parameters
    ----------
    id : int or str
        Identity of the row, as it came.
    prompt, response_a, response_b : tuple of str
        Turns in order; all three have the same number of turns. A null turn is an empty string.
    """

    id: object
    prompt: Turns
    response_a: Turns
    response_b: Turns


@dataclass(frozen=True, eq=False)
class Battles(Sequence[Battle]):
    """A table of battles in the order of the rows they came from.

    Attributes
    ----------
    ids : pandas.Index
        Unique ids with the dtype they came with.
    prompts, responses_a, responses_b : list of tuple of str
        Turns of every row.
    n_replaced_surrogates : int
        Lone surrogates that became U+FFFD, over all cells.
    """

    ids: "pd.Index[Any]"
    prompts: list[Turns]
    responses_a: list[Turns]
    responses_b: list[Turns]
    n_replaced_surrogates: int = 0

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, position: int) -> Battle: ...
    @overload
    def __getitem__(self, position: slice) -> "Battles": ...
    def __getitem__(self, position: int | slice) -> "Battle | Battles":
        if isinstance(position, slice):
            return self.take(np.arange(len(self))[position])
        return Battle(
            self.ids[position], self.prompts[position], self.responses_a[position], self.responses_b[position]
        )

    def __iter__(self) -> Iterator[Battle]:
        return map(Battle, self.ids, self.prompts, self.responses_a, self.responses_b)

    def take(self, positions: NDArray[np.intp]) -> "Battles":
        """Return the rows at `positions`, in that order."""
        return replace(
            self,
            ids=self.ids[positions],
            prompts=[self.prompts[i] for i in positions],
            responses_a=[self.responses_a[i] for i in positions],
            responses_b=[self.responses_b[i] for i in positions],
        )

    def swapped(self) -> "Battles":
        """Return the same battles with the two responses swapped."""
        return replace(self, responses_a=self.responses_b, responses_b=self.responses_a)

    def characters(self) -> NDArray[np.int64]:
        """Return the number of characters of every row's texts."""
        columns = (self.prompts, self.responses_a, self.responses_b)
        return np.array(
            [sum(len(text) for turns in row for text in turns) for row in zip(*columns, strict=True)], dtype=np.int64
        )

    def content_hashes(self) -> list[str]:
        """Return a hash of every row's texts (not of its id), 32 hexadecimal digits each."""
        return [
            hashlib.blake2b(
                json.dumps([battle.prompt, battle.response_a, battle.response_b]).encode(), digest_size=16
            ).hexdigest()
            for battle in self
        ]


def parse_battles(table: TableLike, text_format: TextFormat = "auto") -> Battles:
    """Validate a table and split its texts into turns.

    Parameters
    ----------
    table : DataFrame
        With the columns ``id``, ``prompt``, ``response_a`` and ``response_b``; others are ignored. Paths of files,
        lists of dicts and tables of other libraries (polars, Arrow, DuckDB) are taken, too.
    text_format : {"auto", "json", "list", "plain"}
        What the text columns hold. ``auto`` decides for each column: real lists, strings that are JSON lists of
        strings and nulls (where at least half of the cells are), or plain strings of one turn.

    Returns
    -------
    Battles
        In the order of the table.

    Raises
    ------
    InputError
        If columns are missing, ids are missing or duplicated, or cells are no text; up to ten are named.
    """
    table = as_frame(table)
    require_columns(table, (ID_COLUMN, *TEXT_COLUMNS))
    ids = parse_ids(table[ID_COLUMN])
    faults: list[str] = []
    n_surrogates = 0
    columns: list[list[Turns]] = []
    for name in TEXT_COLUMNS:
        cells = table[name].tolist()
        parsed = _parse_column(cells, name, ids, _decide_format(cells, text_format), faults)
        cleaned, replaced = _replace_surrogates(parsed)
        n_surrogates += replaced
        columns.append(cleaned)
    if not faults:
        faults = [
            f"row {row_id!r}: {len(p)} turns in prompt, {len(a)} in response_a and {len(b)} in response_b"
            for row_id, p, a, b in zip(ids, *columns, strict=True)
            if not len(p) == len(a) == len(b)
        ]
    if faults:
        listed = "\n  ".join(faults[:MAX_LISTED_FAULTS])
        more = len(faults) - MAX_LISTED_FAULTS
        tail = f"\n  and {more} more" if more > 0 else ""
        raise InputError(f"{len(faults)} of the table's cells or rows cannot be used:\n  {listed}{tail}")
    prompts, responses_a, responses_b = columns
    return Battles(ids, prompts, responses_a, responses_b, n_surrogates)


def _json_turns(cell: str) -> list[str | None] | None:
    """Return the turns of a JSON list of strings and nulls, or None for any other text."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return turns if all(turn is None or isinstance(turn, str) for turn in turns) else None


def _decide_format(cells: Sequence[object], text_format: TextFormat) -> TextFormat:
    if text_format != "auto":
        return text_format
    if any(isinstance(cell, list | tuple | np.ndarray) for cell in cells):
        return "list"
    texts = [cell for cell in cells if isinstance(cell, str)]
    n_json = sum(_json_turns(text) is not None for text in texts)
    return "json" if n_json and 2 * n_json >= len(texts) else "plain"


def _parse_column(
    cells: Sequence[object], name: str, ids: "pd.Index[Any]", text_format: TextFormat, faults: list[str]
) -> list[Turns]:
    parsed: list[Turns] = []
    for row_id, cell in zip(ids, cells, strict=True):
        turns, fault = _parse_cell(cell, text_format)
        if fault:
            faults.append(f"row {row_id!r}, column {name!r}: {fault}")
        parsed.append(tuple(turn or "" for turn in turns))
    return parsed


def _parse_cell(cell: object, text_format: TextFormat) -> tuple[Sequence[str | None], str]:
    """Return the turns of a cell and what is wrong with it ('' if nothing is)."""
    if text_format == "list":
        if not isinstance(cell, list | tuple | np.ndarray):
            return (), f"expected a list of strings like the column's other cells, got {_describe(cell)}"
        turns: list[Any] = list(cell)
    elif not isinstance(cell, str):
        return (), f"expected text, got {_describe(cell)}"
    elif text_format == "plain":
        turns = [cell]
    else:
        parsed = _json_turns(cell)
        if parsed is None:
            return (), (
                f"expected a JSON list of strings and nulls like the column's other cells, got {_describe(cell)}; "
                "pass text_format='plain' if the column holds plain texts"
            )
        turns = parsed
    for number, turn in enumerate(turns, 1):
        if turn is not None and not isinstance(turn, str):
            return (), f"turn {number} must be text or null, got {_describe(turn)}"
    return (turns, "") if len(turns) else ((), "an empty list has no turns")


def _describe(value: object) -> str:
    text = reprlib.repr(value) if isinstance(value, list | tuple | dict | np.ndarray) else repr(value)  # any depth
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    return f"{shown} ({type(value).__name__})"


def _replace_surrogates(column: list[Turns]) -> tuple[list[Turns], int]:
    """Join surrogate pairs and turn lone surrogates, which no tokenizer takes, into U+FFFD."""
    replaced = 0
    cleaned = []
    for turns in column:
        if any(not _is_encodable(turn) for turn in turns):
            fixed = []
            for turn in turns:
                joined = turn.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                replaced += joined.count("\ufffd") - turn.count("\ufffd")
                fixed.append(joined)
            turns = tuple(fixed)
        cleaned.append(turns)
    return cleaned, replaced


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
