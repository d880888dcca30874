"""Preference data that others have published, read from their own files into the library's columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmsys_ensemble.data.battles import Battles, Turns, parse_battles
from lmsys_ensemble.data.conversations import UnusableRow, chosen_is_a, same_prompt, split_messages, split_transcript
from lmsys_ensemble.data.frames import TableLike, as_frame
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.merging import KEPT_COLUMNS, labelled_table
from lmsys_ensemble.data.tables import MAX_LISTED_FAULTS, parse_ids, require_columns
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.schema import ID_COLUMN, TEXT_COLUMNS, THREE_WAY, TWO_WAY, WINNER_COLUMN
from lmsys_ensemble.settings import suggest

A_WINS, B_WINS, TIE = 0, 1, 2

SCORE_COLUMNS = (
    ("score_chosen", "score_rejected"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_score", "rejected_score"),
)
"""What releases of UltraFeedback call the scores of the two responses."""


@dataclass(frozen=True)
class Loaded:
    """Rows of a source.

    Attributes
    ----------
    table : DataFrame
        In the library's columns, see `lmsys_ensemble.data.merging.merge_sources`.
    skipped : dict
        Ids (without them, numbers counted from 0) of rows that are no battles, and why.
    """

    table: pd.DataFrame
    skipped: dict[object, str]


@dataclass(frozen=True)
class _Rows:
    """What was read: battles, labels, the positions of their rows in the file, and what was skipped."""

    battles: Battles
    labels: Probabilities
    positions: Sequence[int]
    skipped: dict[object, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A published format: what it is, the columns that it must have, and how its rows are read."""

    description: str
    columns: tuple[str, ...]
    read: Callable[[pd.DataFrame], _Rows]


def load_source(name: str, table: TableLike) -> Loaded:
    """Read a public source.

    Parameters
    ----------
    name : str
        A name of `SOURCES`.
    table : str, Path or DataFrame
        The user's file, or what was read from it; other kinds of tables as for `lmsys_ensemble.parse_battles`.

    Returns
    -------
    Loaded
        Rows in the order of the file. Its column ``source`` holds `name`.

    Raises
    ------
    InputError
        If there is no such source, the file cannot be read, columns are missing (names them, those that were found,
        and the source that they fit), or its rows cannot be used.

    Examples
    --------
    >>> load_source("lmsys", "train.csv").table  # doctest: +SKIP
    """
    if name not in SOURCES:
        raise InputError(f"there is no source {name!r}{suggest(name, SOURCES)}")
    source, frame = SOURCES[name], as_frame(table)
    where = "the table" if isinstance(table, pd.DataFrame) else str(table)[:200]
    try:
        require_columns(frame, source.columns)
    except InputError as error:
        fitting = [other for other, known in SOURCES.items() if set(known.columns) <= set(frame.columns)]
        cure = f"; its columns are those of {' or '.join(map(repr, fitting))}" if fitting else ""
        raise InputError(f"{where} is not as the source {name!r} ({source.description}): {error}{cure}") from error
    try:
        rows = source.read(frame)
        if not len(rows.battles):
            first = next(iter(rows.skipped.items()), None)
            raise InputError(f"no row can be used; {f'row {first[0]!r}: {first[1]}' if first else 'there are none'}")
    except InputError as error:
        raise InputError(f"{where} (source {name!r}): {error}") from error
    loaded = labelled_table(rows.battles, rows.labels, name)
    for column in KEPT_COLUMNS:
        if column in frame:
            loaded[column] = frame[column].iloc[list(rows.positions)].to_numpy(dtype=object)
    return Loaded(loaded, rows.skipped)


def split_source(text: str, folder: Path = Path()) -> tuple[str | None, str]:
    """Return source and path of ``SOURCE=FILE``, or None and the path of a file in the library's own columns.

    A file in `folder` that is called just so comes first.

    Raises
    ------
    InputError
        If one of the two is empty.
    """
    source, separator, path = text.partition("=")
    if not separator or (folder / text).exists():
        return None, text
    if not (source and path):
        raise InputError(f"{text!r} must be SOURCE=FILE or a file")
    return source, path


def skipped_lines(skipped: Mapping[str, Mapping[object, str]]) -> list[str]:
    """Return what people read of rows that are no battles, by file; of every file the first ones."""
    lines = []
    for path, rows in skipped.items():
        lines.append(f"{path}: rows that are no battles were skipped ({len(rows):,}):")
        lines += [f"  {row}: {reason}" for row, reason in list(rows.items())[:MAX_LISTED_FAULTS]]
        if len(rows) > MAX_LISTED_FAULTS:
            lines.append("  …")
    return lines


def skipped_values(skipped: Mapping[str, Mapping[object, str]]) -> list[dict[str, object]]:
    """Return rows that are no battles, by file, as values that JSON takes."""
    return [
        {"file": path, "id": row, "reason": reason} for path, rows in skipped.items() for row, reason in rows.items()
    ]


def _read_lmsys(frame: pd.DataFrame) -> _Rows:
    return _Rows(parse_battles(frame), parse_labels(frame, THREE_WAY), range(len(frame)))


def _read_wsdm(frame: pd.DataFrame) -> _Rows:
    return _Rows(parse_battles(frame, "plain"), parse_labels(frame, TWO_WAY), range(len(frame)))


def _read_arena(frame: pd.DataFrame) -> _Rows:
    labels = parse_labels(frame[[WINNER_COLUMN]], THREE_WAY)
    columns = [frame[name].tolist() for name in ("conversation_a", "conversation_b")]

    def read(position: int) -> tuple[Turns, Turns, Turns, Any]:
        a, b = (split_messages(column[position]) for column in columns)
        return (*same_prompt(a, b), labels[position])

    return _read_rows(frame, "question_id", read)


def _read_ultrafeedback(frame: pd.DataFrame) -> _Rows:
    prompts, chosen, rejected = (frame[name].tolist() for name in ("prompt", "chosen", "rejected"))
    names = next((pair for pair in SCORE_COLUMNS if set(pair) <= set(frame.columns)), None)
    gaps = np.full(len(frame), np.nan)
    if names:
        high, low = (pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float) for name in names)
        gaps = high - low

    def read(position: int) -> tuple[Turns, Turns, Turns, Any]:
        texts = same_prompt(*(_conversation(prompts[position], column[position]) for column in (chosen, rejected)))
        if gaps[position] < 0:
            raise UnusableRow("the rejected response has the higher score")
        return _ordered(*texts, is_tie=gaps[position] == 0)

    return _read_rows(frame, ID_COLUMN, read)


def _read_hh(frame: pd.DataFrame) -> _Rows:
    columns = [frame[name].tolist() for name in ("chosen", "rejected")]

    def read(position: int) -> tuple[Turns, Turns, Turns, Any]:
        return _ordered(*same_prompt(*(split_transcript(column[position]) for column in columns)))

    return _read_rows(frame, ID_COLUMN, read)


def _conversation(prompt: Any, response: Any) -> tuple[Turns, Turns]:
    """Return the turns of a prompt and a response, each a text or a list of messages."""
    lists = (list, tuple, np.ndarray)
    if isinstance(response, lists):
        messages = list(response)
        if isinstance(prompt, lists) and messages[: len(prompt)] != list(prompt):  # they hold the answer alone
            messages = [*prompt, *messages]
        return split_messages(messages)
    if isinstance(prompt, str) and isinstance(response, str):
        return (prompt,), (response,)
    raise UnusableRow(f"expected texts or lists of messages, got {type(prompt).__name__} and {type(response).__name__}")


def _ordered(prompt: Turns, chosen: Turns, rejected: Turns, is_tie: bool = False) -> tuple[Turns, Turns, Turns, Any]:
    """Return a row whose order of responses tells nothing of which was chosen."""
    is_a = chosen_is_a(prompt, chosen, rejected)
    a, b = (chosen, rejected) if is_a else (rejected, chosen)
    return prompt, a, b, np.eye(THREE_WAY.n_classes)[TIE if is_tie else A_WINS if is_a else B_WINS]


def _read_rows(frame: pd.DataFrame, id_column: str, read: Callable[[int], tuple[Turns, Turns, Turns, Any]]) -> _Rows:
    """Read row by row; rows that are no battles are skipped, with the reason."""
    ids = parse_ids(frame[id_column]) if id_column in frame else pd.RangeIndex(len(frame))
    positions: list[int] = []
    found: list[tuple[Turns, Turns, Turns, Any]] = []
    skipped: dict[object, str] = {}
    for position, row_id in enumerate(ids.tolist()):
        try:
            found.append(read(position))
            positions.append(position)
        except UnusableRow as error:
            skipped[row_id] = str(error)
    prompts, a, b, labels = (list(column) for column in zip(*found, strict=True)) if found else ([], [], [], [])
    # Through the check of all battles, so that lone surrogates are replaced and empty rows named.
    table = pd.DataFrame(dict(zip(TEXT_COLUMNS, (prompts, a, b), strict=True)), dtype=object)
    battles = parse_battles(table.assign(**{ID_COLUMN: ids[positions]}), "list")
    return _Rows(battles, np.reshape(labels, (-1, THREE_WAY.n_classes)), positions, skipped)


_LMSYS_COLUMNS = (ID_COLUMN, *TEXT_COLUMNS, *THREE_WAY.columns)

SOURCES = {
    "lmsys": Source("train.csv of the LMSYS competition on Kaggle", _LMSYS_COLUMNS, _read_lmsys),
    "lmsys-55k": Source("arena-human-preference-55k, the same battles on the Hub", _LMSYS_COLUMNS, _read_lmsys),
    "lmsys-33k": Source(
        "chatbot_arena_conversations, 33k battles of 2023; also later releases with conversation_a and conversation_b",
        ("question_id", "conversation_a", "conversation_b", WINNER_COLUMN),
        _read_arena,
    ),
    "wsdm": Source(
        "train.parquet of the WSDM Cup on Kaggle: two classes, plain texts",
        (ID_COLUMN, *TEXT_COLUMNS, WINNER_COLUMN),
        _read_wsdm,
    ),
    "ultrafeedback": Source(
        "UltraFeedback and tables like it: a chosen and a rejected response; equal scores are a tie",
        ("prompt", "chosen", "rejected"),
        _read_ultrafeedback,
    ),
    "hh-rlhf": Source(
        "HH-RLHF and tables like it: a chosen and a rejected transcript", ("chosen", "rejected"), _read_hh
    ),
}
"""Formats of public preference data, by the name that `load_source` takes."""
