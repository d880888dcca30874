"""Submissions: a checked table, written whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmsys_ensemble.data.tables import MAX_LISTED_FAULTS, encode_table, parse_ids
from lmsys_ensemble.errors import InputError, SubmissionError
from lmsys_ensemble.files import write_atomically
from lmsys_ensemble.probabilities import renormalise, without_tie
from lmsys_ensemble.schema import ID_COLUMN, THREE_WAY, TWO_WAY, WINNER_COLUMN, Task

SUM_TOLERANCE = 1e-6
"""How far a row's sum may lie from 1 in a prediction (which comes from a softmax, not from a rounded file)."""


@dataclass(frozen=True)
class SubmissionForm:
    """What a competition asks for.

    Attributes
    ----------
    task : Task
        The classes that it knows.
    verdicts : bool
        Whether a row is the name of the likeliest class (``id,winner``, as in the WSDM Cup) instead of probabilities.
    """

    task: Task
    verdicts: bool = False

    @property
    def columns(self) -> list[str]:
        """Columns of the submission."""
        return [ID_COLUMN, *((WINNER_COLUMN,) if self.verdicts else self.task.columns)]

    def leaves_out_tie(self, task: Task) -> bool:
        """Tell whether predictions of a task have a class for ties that the competition does not know."""
        return task.n_classes > self.task.n_classes


def submission_form(sample: pd.DataFrame, task: Task = THREE_WAY) -> SubmissionForm:
    """Read off a sample submission what is asked for.

    A sample with the columns ``id`` and ``winner`` asks for names of classes: of A and B, unless the sample names ties.
    Predictions with ties serve a sample that knows none.

    Raises
    ------
    SubmissionError
        If its columns are neither those of the task, nor without the tie, nor ``id`` and ``winner``; or if ``winner``
        holds other values than names of classes.
    """
    forms = [SubmissionForm(task), *([SubmissionForm(TWO_WAY)] if task.n_classes == THREE_WAY.n_classes else [])]
    found = sorted(map(str, sample.columns))
    for form in forms:
        if found == sorted(form.columns):
            return form
    if found != sorted([ID_COLUMN, WINNER_COLUMN]):
        listed = " or ".join(", ".join(form.columns) for form in (*forms, SubmissionForm(task, verdicts=True)))
        raise SubmissionError(f"the sample has the columns {', '.join(map(str, sample.columns))}, expected {listed}")
    named = {str(value) for value in sample[WINNER_COLUMN].dropna()} - {""}
    unknown = sorted(named - set(task.classes))
    if unknown:
        raise SubmissionError(
            f"the sample's column {WINNER_COLUMN} holds {_listed(unknown)}, expected {', '.join(task.classes)}"
        )
    return SubmissionForm(task if named - set(TWO_WAY.classes) else TWO_WAY, verdicts=True)


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
        columns' order. Without one, the rows stay as they are. One with the columns ``id`` and ``winner`` gets the
        likeliest class of every row (A where A and B are equally likely). Where the sample knows no ties and the
        predictions do, the tie is left out and the rest renormalised.
    task : Task
        Gives the columns.

    Returns
    -------
    DataFrame
        ``id`` and the classes' columns, where every row is finite and sums to 1; or ``id`` and ``winner``.

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
    form = SubmissionForm(task)
    if sample is not None:
        form = submission_form(sample, task)
        wanted = check_sample(sample, ids, task=task)
        table = table.iloc[ids.get_indexer(wanted)].reset_index(drop=True)
        table[ID_COLUMN] = sample[ID_COLUMN].to_numpy()
        columns = [str(name) for name in sample.columns]
    values = renormalise(table[list(task.columns)].to_numpy())
    if form.leaves_out_tie(task):
        values = without_tie(values)
    table[list(form.task.columns)] = values
    if form.verdicts:
        table[WINNER_COLUMN] = np.array(form.task.classes, dtype=object)[values.argmax(axis=1)]
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
        If its columns are wrong (see `submission_form`), ids occur twice, or ids differ; names ids and their kinds.
    """
    submission_form(sample, task)
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
