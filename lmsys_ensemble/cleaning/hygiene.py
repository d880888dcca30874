"""Data hygiene: rows that harm training or spoil what is measured are dropped or relabelled, and every one is named."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lmsys_ensemble.cleaning.cleaner import Cleaner, Rows
from lmsys_ensemble.cleaning.report import CleaningReport
from lmsys_ensemble.cleaning.settings import HygieneSettings
from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.corpus import Labelled, as_text
from lmsys_ensemble.data.frames import TableLike, as_frame
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import GROUP_COLUMN, THREE_WAY, WINNER_COLUMN, Task

SOURCE_COLUMN, LANGUAGE_COLUMN = "source", "language"


def clean(
    table: TableLike,
    settings: HygieneSettings | None = None,
    evaluation: TableLike | None = None,
    task: Task = THREE_WAY,
) -> tuple[pd.DataFrame, CleaningReport]:
    """Clean a table of battles.

    Parameters
    ----------
    table : DataFrame
        Battles, with labels or without; see `lmsys_ensemble.parse_battles` and `lmsys_ensemble.parse_labels` for
        kinds of tables and columns. The columns ``source``, ``group`` and ``language`` are used where they are there.
    settings : HygieneSettings, optional
        What is done; by default as its parameters say.
    evaluation : DataFrame, optional
        Battles that will be measured on.
    task : Task
        Classes of the labels.

    Returns
    -------
    cleaned : DataFrame
        The rows that are left, in their order, with all their columns. ``group`` says which rows share a prompt:
        rows of one group in the input, and rows whose prompts are equal or nearly so. Labels stand in the task's
        columns, which replace a column ``winner``.
    report : CleaningReport
        What was done with which rows, and why.

    Raises
    ------
    InputError
        If battles or labels cannot be used, or no row would be left.

    Examples
    --------
    >>> cleaned, report = clean("train.csv", evaluation="holdout.csv")  # doctest: +SKIP
    >>> print(report.to_text())  # doctest: +SKIP
    """
    frame = as_frame(table)
    battles = parse_battles(frame)
    has_labels = WINNER_COLUMN in frame or bool(set(task.columns) & set(frame.columns))
    rows = Rows(
        battles,
        parse_labels(frame, task) if has_labels else None,
        sources=_texts(frame, SOURCE_COLUMN),
        languages=_texts(frame, LANGUAGE_COLUMN),
        groups=_texts(frame, GROUP_COLUMN),
    )
    held = None
    if evaluation is not None:
        try:
            held = parse_battles(evaluation)
        except InputError as error:
            raise InputError(f"the evaluation set: {error}") from error
    done = Cleaner(rows, settings or HygieneSettings(), task, held).run()
    cleaned = frame.iloc[done.positions].reset_index(drop=True)
    if done.labels is not None:
        cleaned = cleaned.drop(columns=WINNER_COLUMN, errors="ignore")
        cleaned[list(task.columns)] = done.labels
    cleaned[GROUP_COLUMN] = done.groups
    return cleaned, done.report


def clean_labelled(
    data: Labelled, settings: HygieneSettings, evaluation: Battles | None = None, task: Task = THREE_WAY
) -> tuple[Labelled, CleaningReport]:
    """Clean labelled battles that have been read already; parameters, results and errors as for `clean`."""
    rows = Rows(data.battles, data.labels, sources=_known(data.sources.tolist()), groups=_known(data.groups.tolist()))
    done = Cleaner(rows, settings, task, evaluation).run()
    kept = data.take(done.positions)
    labels = kept.labels if done.labels is None else done.labels
    return replace(kept, labels=labels, groups=np.array(done.groups, dtype=object)), done.report


def _texts(frame: pd.DataFrame, name: str) -> list[str | None] | None:
    """Return a column's values as texts, missing and empty ones as None; None where there is no such column."""
    return _known(frame[name].tolist()) if name in frame else None


def _known(values: Sequence[Any]) -> list[str | None]:
    return [None if pd.isna(value) or value == "" else as_text(value) for value in values]
