"""Submissions: a checked table, written whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmsys_ensemble.data.tables import MAX_LISTED_FAULTS, encode_table, parse_ids
from lmsys_ensemble.errors import InputError, SubmissionError
from lmsys_ensemble.files import write_atomically
from lmsys_ensemble.probabilities import renormalise
from lmsys_ensemble.schema import ID_COLUMN, THREE_WAY, Task

SUM_TOLERANCE = 1e-6
"""How far a row's sum may lie from 1 in a prediction (which comes from a softmax, not from a rounded file)."""


def build_submission(
    probabilities: pd.DataFrame, sample: pd.DataFrame | None = None, *, task: Task = THREE_WAY
) -> pd.DataFrame:
    """Make a submission of predictions, or say why it would be wrong.

    Parameters
    ----------
    probabilities : DataFrame
        ``id`` and one column per class, as `Ensemble.predict` returns them; further columns are dropped.
    sample : DataFrame, optional
        The competition's sample submission: the result has its ids (with their dtype), its rows' order and its
        columns' order. Without one, the rows stay as they are.
    task : Task
        Gives the columns.

    Returns
    -------
    DataFrame
        ``id`` and the classes' columns; every row is finite and sums to 1.

    Raises
    ------
    SubmissionError
        If columns or ids are missing, ids differ from the sample's, or a row is no probability; names the rows.
    """
    columns = [ID_COLUMN, *task.columns]
    missing = [name for name in columns if name not in probabilities]
    if missing:
        raise SubmissionError(f"the predictions lack the columns {', '.join(missing)}")
    try:
        ids = parse_ids(probabilities[ID_COLUMN])
    except InputError as error:
        raise SubmissionError(f"predictions: {error}") from error
    table = pd.DataFrame(probabilities.loc[:, columns])
    _check_values(table, task)
    if sample is not None:
        wanted = check_sample(sample, ids, task=task)
        table = table.iloc[ids.get_indexer(wanted)].reset_index(drop=True)
        table[ID_COLUMN] = sample[ID_COLUMN].to_numpy()
        columns = [str(name) for name in sample.columns]
    table[list(task.columns)] = renormalise(table[list(task.columns)].to_numpy())
    return table.loc[:, columns].reset_index(drop=True)


def check_sample(
    sample: pd.DataFrame, ids: "pd.Index[Any]", *, task: Task = THREE_WAY, source: str = "predictions"
) -> "pd.Index[Any]":
    """Compare a sample submission with the ids of the rows that are predicted; they need not be scored yet.

    Parameters
    ----------
    sample : DataFrame
        The competition's sample submission.
    ids : pandas.Index
        Unique ids of the rows that are predicted.
    task : Task
        Gives the columns.
    source : str
        What errors call the rows that `ids` belong to.

    Returns
    -------
    pandas.Index
        The sample's ids, in its order.

    Raises
    ------
    SubmissionError
        If its columns are wrong, ids occur twice, or ids differ; names ids and their kinds.
    """
    expected = [ID_COLUMN, *task.columns]
    if sorted(map(str, sample.columns)) != sorted(expected):
        raise SubmissionError(
            f"the sample has the columns {', '.join(map(str, sample.columns))}, expected {', '.join(expected)}"
        )
    try:
        wanted = parse_ids(sample[ID_COLUMN])
    except InputError as error:
        raise SubmissionError(f"sample: {error}") from error
    lacking, extra = wanted.difference(ids), ids.difference(wanted)
    if len(lacking) or len(extra):
        kinds = ""
        if ids.dtype != wanted.dtype:
            kinds = f"; ids are {ids.dtype} in the {source}, {wanted.dtype} in the sample"
        raise SubmissionError(
            f"ids differ from the sample's: {len(lacking)} of the sample have no prediction "
            f"({_listed(lacking.tolist())}), "
            f"{len(extra)} {source} are not in the sample ({_listed(extra.tolist())}){kinds}"
        )
    return wanted


def write_submission(submission: pd.DataFrame, path: str | Path) -> None:
    """Write a submission as CSV, atomically, with all digits of its numbers; packed where the name ends in .gz."""
    write_atomically(
        path, encode_table(submission, path if str(path).lower().endswith(".csv.gz") else "submission.csv")
    )


def _check_values(table: pd.DataFrame, task: Task) -> None:
    try:
        values = table[list(task.columns)].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SubmissionError(f"the predictions are no numbers: {error}") from error
    with np.errstate(all="ignore"):  # what is not finite is named below
        sums = values.sum(axis=1)
    for fault, rows in (
        ("are not finite", ~np.isfinite(values).all(axis=1)),
        ("are negative", (values < 0).any(axis=1)),
        ("do not sum to 1", ~(np.abs(sums - 1) <= SUM_TOLERANCE)),
    ):
        if rows.any():
            ids = np.asarray(table[ID_COLUMN])[rows].tolist()
            raise SubmissionError(f"{len(ids)} rows {fault}: {_listed(ids)}")


def _listed(ids: Sequence[object]) -> str:
    shown = ", ".join(repr(value) for value in ids[:MAX_LISTED_FAULTS])
    return (shown + (", …" if len(ids) > MAX_LISTED_FAULTS else "")) or "none"
