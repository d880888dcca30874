"""Battles with labels, sources and groups, out of one file or several."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.frames import TableLike, as_frame
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.merging import SOURCE_COLUMN
from lmsys_ensemble.data.predictions import name_files
from lmsys_ensemble.data.sources import load_source
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.schema import GROUP_COLUMN, PROMPT, Task


@dataclass(frozen=True)
class DataFile:
    """A file of labelled battles, and the name of its public format where it is not in the library's columns."""

    path: Path
    source: str | None = None


@dataclass(frozen=True)
class Labelled:
    """Battles with labels.

    Attributes
    ----------
    battles : Battles
        The rows.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft.
    sources, groups : ndarray of shape (n_rows,)
        Texts: where each row came from, and which rows share a prompt.
    """

    battles: Battles
    labels: Probabilities
    sources: NDArray[np.object_]
    groups: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.battles)

    def take(self, rows: NDArray[np.intp]) -> "Labelled":
        """Return some of the rows."""
        return Labelled(self.battles.take(rows), self.labels[rows], self.sources[rows], self.groups[rows])


def read_labelled(
    files: Sequence[Path | DataFile], task: Task, skipped: dict[str, dict[object, str]] | None = None
) -> Labelled:
    """Read labelled battles from several files.

    A row's source is its column ``source``, else the name of a public format, else the file's name; its group the
    column ``group``, else its prompt. Where ids of different files are equal or of different kinds, all become
    ``name:id``. Groups that are texts hold across files. Where several files number theirs, from 0 say, numbers are of
    their own file and become ``name:group``.

    Parameters
    ----------
    files : sequence of Path or DataFile
        The files.
    task : Task
        Gives the classes.
    skipped : dict, optional
        Receives rows of public formats that are no battles, and why, by file.

    Raises
    ------
    InputError
        If a file, its battles or its labels cannot be used; names the file.
    """
    named = [file if isinstance(file, DataFile) else DataFile(file) for file in files]
    parts = [_read_one(file, task, {} if skipped is None else skipped) for file in named]
    all_ids = [row_id for part in parts for row_id in part.battles.ids]
    ids, names = pd.Index(all_ids), name_files([file.path for file in named])
    if not ids.is_unique or len({isinstance(row_id, str) for row_id in all_ids}) > 1:
        ids = pd.Index([f"{name}:{row}" for name, part in zip(names, parts, strict=True) for row in part.battles.ids])
    return Labelled(
        Battles(
            ids,
            [turns for part in parts for turns in part.battles.prompts],
            [turns for part in parts for turns in part.battles.responses_a],
            [turns for part in parts for turns in part.battles.responses_b],
        ),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.sources for part in parts]),
        np.array(_join_groups([part.groups.tolist() for part in parts], names), dtype=object),
    )


def _join_groups(groups: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    """Return the groups of several files, one file after the other; numbers that several files use name their file."""
    files_of = Counter(group for inside in groups for group in set(inside) if group.isdecimal())
    if max(files_of.values(), default=1) == 1:
        return [group for inside in groups for group in inside]
    return [
        f"{name}:{group}" if group.isdecimal() else group
        for name, inside in zip(names, groups, strict=True)
        for group in inside
    ]


def _read_one(file: DataFile, task: Task, skipped: dict[str, dict[object, str]]) -> Labelled:
    table: TableLike = file.path
    if file.source is not None:
        loaded = load_source(file.source, file.path)
        table = loaded.table
        if loaded.skipped:
            skipped[file.path.name] = loaded.skipped
    try:
        return as_labelled(table, task, file.path.stem)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from error


def as_labelled(table: TableLike, task: Task, source: str = "data") -> Labelled:
    """Return a table's rows with their labels; see `read_labelled`.

    Parameters
    ----------
    table : DataFrame
        Battles with labels; other kinds of tables as for `lmsys_ensemble.data.battles.parse_battles`.
    task : Task
        Gives the classes.
    source : str
        Source of the rows for which the column ``source``, if there is one, says nothing. Where ``group`` says nothing,
        a row's group is its prompt.

    Raises
    ------
    InputError
        If its battles or its labels cannot be used.
    """
    frame = as_frame(table)
    battles, labels = parse_battles(frame), parse_labels(frame, task)
    prompts = frame[PROMPT].astype(str).tolist()
    return Labelled(
        battles, labels, _texts(frame, SOURCE_COLUMN, [source] * len(frame)), _texts(frame, GROUP_COLUMN, prompts)
    )


def _texts(frame: pd.DataFrame, name: str, otherwise: list[str]) -> NDArray[np.object_]:
    """Return a column as texts, and `otherwise` where it is missing or empty."""
    values = frame[name].tolist() if name in frame else [None] * len(frame)
    texts = [
        other if pd.isna(value) or value == "" else as_text(value)
        for value, other in zip(values, otherwise, strict=True)
    ]
    return np.array(texts, dtype=object)


def as_text(value: object) -> str:
    """Return the name that a value stands for; a column of whole numbers with gaps holds floats.

    >>> as_text(3.0), as_text(3), as_text("3")
    ('3', '3', '3')
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def rows_by_source(data: Labelled) -> dict[str, int]:
    """Return the number of rows of every source."""
    return dict(sorted(Counter(str(source) for source in data.sources).items()))


def data_hash(data: Labelled) -> str:
    """Return a SHA-256 over contents and labels of all rows, in order."""
    digest = hashlib.sha256()
    for content, label in zip(data.battles.content_hashes(), data.labels, strict=True):
        digest.update(content.encode())
        digest.update(np.round(label, 6).tobytes())
    return digest.hexdigest()


def origin_hash(*parts: Labelled) -> str:
    """Return a SHA-256 over ids, sources and groups of all rows, in order: what `data_hash` leaves out."""
    columns = [(part.battles.ids.tolist(), part.sources.tolist(), part.groups.tolist()) for part in parts]
    return hashlib.sha256(json.dumps(columns, default=str).encode(errors="surrogatepass")).hexdigest()
