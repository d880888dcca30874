"""Submissions: a checked table, written whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lmsys_ensemble.errors import InputError, SubmissionError
from lmsys_ensemble.files import write_atomically
from lmsys_ensemble.probabilities import renormalise
from lmsys_ensemble.schema import ID_COLUMN, THREE_WAY, Task
from lmsys_ensemble.tables import MAX_LISTED_FAULTS, parse_ids

SUM_TOLERANCE = 1e-6
"""How far a row's sum may lie from 1 in a prediction (which comes from a softmax, not from a rounded file)."""


def build_submission(
    probabilities: pd.DataFrame, sample: pd.DataFrame | None = None, *, task: Task = THREE_WAY
) -> pd.DataFrame:
    """Make a submission of predictions, or say why it would be wrong.

    Parameters
    ----------
    probabilities : DataFrame
        ``id`` and one column a class, as `Ensemble.predict` returns them; further columns are dropped.
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
        table, columns = _align(table, ids, sample, columns)
    table[list(task.columns)] = renormalise(table[list(task.columns)].to_numpy())
    return table.loc[:, columns].reset_index(drop=True)


def write_submission(submission: pd.DataFrame, path: str | Path) -> None:
    """Write a submission as CSV, atomically, with all digits of its numbers."""
    write_atomically(path, submission.to_csv(index=False))


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


def _align(
    table: pd.DataFrame, ids: "pd.Index[int] | pd.Index[str]", sample: pd.DataFrame, columns: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    if set(sample.columns) != set(columns):
        raise SubmissionError(
            f"the sample has the columns {', '.join(map(str, sample.columns))}, expected {', '.join(columns)}"
        )
    try:
        wanted = parse_ids(sample[ID_COLUMN])
    except InputError as error:
        raise SubmissionError(f"sample: {error}") from error
    lacking, extra = wanted.difference(ids), ids.difference(wanted)
    if len(lacking) or len(extra):
        types = (
            ""
            if ids.dtype == wanted.dtype
            else f"; ids are {ids.dtype} in the predictions, {wanted.dtype} in the sample"
        )
        raise SubmissionError(
            f"ids differ from the sample's: {len(lacking)} of the sample have no prediction "
            f"({_listed(lacking.tolist())}), "
            f"{len(extra)} predictions are not in the sample ({_listed(extra.tolist())}){types}"
        )
    aligned = table.iloc[ids.get_indexer(wanted)].reset_index(drop=True)
    aligned[ID_COLUMN] = sample[ID_COLUMN].to_numpy()
    return aligned, [str(name) for name in sample.columns]


def _listed(ids: Sequence[object]) -> str:
    shown = ", ".join(repr(value) for value in ids[:MAX_LISTED_FAULTS])
    return (shown + (", …" if len(ids) > MAX_LISTED_FAULTS else "")) or "none"
