"""Pseudo-labels: what models say of unlabelled battles, as labels that training reads; which rows are kept, and why."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from lmsys_ensemble.cleaning.normalization import battle_key
from lmsys_ensemble.data.battles import Battle, Battles, parse_battles
from lmsys_ensemble.data.frames import TableLike, as_frame
from lmsys_ensemble.data.merging import SOURCE_COLUMN, with_json_texts
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import Probabilities, check_probabilities, log_probabilities, softmax
from lmsys_ensemble.schema import THREE_WAY, WINNER_COLUMN, Task
from lmsys_ensemble.settings import Settings
from lmsys_ensemble.training.labelling_report import KEPT, REASONS, PseudoLabelReport, make_report

ORIGIN_COLUMN, CONFIDENCE_COLUMN, LABELLED_BY_COLUMN = "origin", "pseudo_confidence", "labelled_by"
"""Where a row came from before, the probability of its likeliest class, and what gave it its label."""


class PseudoLabelSettings(Settings):
    """Which rows get which labels.

    Parameters
    ----------
    hard : bool
        Whether labels are one-hot, of the likeliest class; by default they are the probabilities.
    temperature : float
        Above 1 labels are less confident; rows are chosen by the confidence that they are written with.
    min_confidence : float
        Rows whose likeliest class is less probable are dropped.
    max_per_class : int or None
        Most rows of a likeliest class; the most confident ones are kept.
    balance : bool
        Keep as many rows of every likeliest class as the rarest has.
    source : str
        What the column ``source`` calls the rows, for weights and hold-outs of a recipe to go by.
    """

    hard: bool = False
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    max_per_class: int | None = Field(default=None, ge=1)
    balance: bool = False
    source: str = Field(default="pseudo", min_length=1)


def pseudo_label(
    table: TableLike,
    probabilities: Probabilities,
    settings: PseudoLabelSettings | None = None,
    *,
    labelled_by: str,
    incomplete: Sequence[bool] | None = None,
    evaluation: TableLike | None = None,
    task: Task = THREE_WAY,
) -> tuple[pd.DataFrame, PseudoLabelReport]:
    """Label battles with what models say of them.

    Parameters
    ----------
    table : DataFrame
        Battles without labels; see `lmsys_ensemble.parse_battles`.
    probabilities : ndarray of shape (n_rows, n_classes)
        What is said of them, row by row.
    settings : PseudoLabelSettings, optional
        Which rows get which labels.
    labelled_by : str
        What the column ``labelled_by`` says.
    incomplete : sequence of bool, optional
        Rows that not all models have scored; they are dropped.
    evaluation : DataFrame, optional
        Battles that will be measured on: rows that are among them, in either order, are dropped.
    task : Task
        Classes and their order.

    Returns
    -------
    labelled : DataFrame
        The rows that are kept, in their order, with all their columns; the labels in the task's columns, ``source``
        (what was there becomes ``origin``), ``pseudo_confidence`` and ``labelled_by``.
    report : PseudoLabelReport
        What was kept and dropped.

    Raises
    ------
    InputError
        If battles or probabilities cannot be used, there are labels already, or no row is left.
    """
    chosen, frame = settings or PseudoLabelSettings(), as_frame(table)
    refuse_labels(frame, task)
    battles = parse_battles(frame)
    given = check_probabilities(probabilities, n_classes=task.n_classes, n_rows=len(battles))
    labels = softmax(log_probabilities(given), chosen.temperature) if chosen.temperature != 1 else given
    verdicts = _Verdicts(labels)
    if evaluation is not None:
        verdicts.drop(_overlapping(battles, evaluation), "overlap")
    if incomplete is not None:
        verdicts.drop(np.asarray(incomplete, dtype=bool), "incomplete")
    verdicts.drop(verdicts.confidence < chosen.min_confidence, "confidence")
    if chosen.max_per_class is not None:
        verdicts.cap(chosen.max_per_class, "max_per_class")
    if chosen.balance:
        verdicts.cap(int(verdicts.counts(task.n_classes).min()), "balance")
    report = make_report(battles.ids.tolist(), verdicts.reasons, labels, task.classes)
    kept = verdicts.remains
    if not kept.any():
        raise InputError(_nothing_left(report, verdicts, task))
    result = with_json_texts(frame).loc[kept].reset_index(drop=True)
    if SOURCE_COLUMN in result:
        result = result.rename(columns={SOURCE_COLUMN: ORIGIN_COLUMN})
    result[list(task.columns)] = np.eye(task.n_classes)[verdicts.likeliest[kept]] if chosen.hard else labels[kept]
    result[SOURCE_COLUMN] = chosen.source
    result[CONFIDENCE_COLUMN] = verdicts.confidence[kept]
    result[LABELLED_BY_COLUMN] = labelled_by
    return result, report


def refuse_labels(frame: pd.DataFrame, task: Task) -> None:
    """Raise `InputError` if a table has labels already."""
    there = [name for name in (*task.columns, WINNER_COLUMN, CONFIDENCE_COLUMN, LABELLED_BY_COLUMN) if name in frame]
    if there:
        raise InputError(
            f"the battles have labels already ({', '.join(there)}), which pseudo-labels would replace; take these "
            "columns out. To learn from labels and models at once, name the models as teachers in the recipe"
        )


class _Verdicts:
    """Why each row is kept or dropped; the first reason stays."""

    def __init__(self, labels: Probabilities):
        self.confidence: NDArray[np.float64] = labels.max(axis=1)
        self.likeliest: NDArray[np.intp] = labels.argmax(axis=1)
        self.reasons = [KEPT] * len(labels)

    @property
    def remains(self) -> NDArray[np.bool_]:
        return np.array([reason == KEPT for reason in self.reasons], dtype=bool)

    def counts(self, n_classes: int) -> NDArray[np.intp]:
        return np.bincount(self.likeliest[self.remains], minlength=n_classes)

    def drop(self, rows: NDArray[np.bool_], reason: str) -> None:
        for row in np.flatnonzero(rows & self.remains).tolist():
            self.reasons[row] = reason

    def cap(self, most: int, reason: str) -> None:
        """Keep the most confident rows of every class, and of equally confident ones the first."""
        beyond = np.zeros(len(self.reasons), dtype=bool)
        for code in np.unique(self.likeliest):
            rows = np.flatnonzero(self.remains & (self.likeliest == code))
            beyond[rows[np.argsort(-self.confidence[rows], kind="stable")][most:]] = True
        self.drop(beyond, reason)


def _overlapping(battles: Battles, evaluation: TableLike) -> NDArray[np.bool_]:
    """Tell which rows are among those of the evaluation set, in either order."""
    try:
        held = {_texts_of(battle) for battle in parse_battles(evaluation)}
    except InputError as error:
        raise InputError(f"the evaluation set: {error}") from error
    return np.array([_texts_of(battle) in held for battle in battles], dtype=bool)


def _texts_of(battle: Battle) -> tuple[str, tuple[bytes, bytes]]:
    key = battle_key(battle)
    return key.prompt, key.responses


def _nothing_left(report: PseudoLabelReport, verdicts: _Verdicts, task: Task) -> str:
    if not len(verdicts.reasons):
        return "there are no rows to label"
    if set(verdicts.reasons) == {"overlap"}:
        return f"none of {len(verdicts.reasons)} rows is left: all are in the evaluation set; give other battles"
    why = "; ".join(f"{count}: {REASONS[reason]}" for reason, count in report.counts().items() if reason != KEPT)
    counts = np.bincount(verdicts.likeliest, minlength=task.n_classes)
    never = [name for name, count in zip(task.classes, counts, strict=True) if not count]
    none_of = f", and no row's likeliest class is {' or '.join(never)}" if never else ""
    return (
        f"none of {len(verdicts.reasons)} rows is left ({why}). The largest confidence is "
        f"{verdicts.confidence.max():.3f}{none_of}; ask for less confidence, or for no balance"
    )
