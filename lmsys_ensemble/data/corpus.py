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
from lmsys_ensemble.data.predictions import name_files
from lmsys_ensemble.data.sources import load_source
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.schema import Task


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
        Where each row came from, and which rows share a prompt.
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
    ``name:id``.

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
    ids = pd.Index(all_ids)
    if not ids.is_unique or len({isinstance(row_id, str) for row_id in all_ids}) > 1:
        names = name_files([file.path for file in named])
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
        np.concatenate([part.groups for part in parts]),
    )


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
        Source of all rows where the table has no column ``source``.

    Raises
    ------
    InputError
        If its battles or its labels cannot be used.
    """
    frame = as_frame(table)
    battles, labels = parse_battles(frame), parse_labels(frame, task)
    sources = frame["source"] if "source" in frame else pd.Series([source] * len(frame))
    groups = frame["group"] if "group" in frame else frame["prompt"].astype(str)
    return Labelled(battles, labels, sources.to_numpy(dtype=object), groups.to_numpy(dtype=object))


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
