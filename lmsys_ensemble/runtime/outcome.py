"""What comes out of a run: probabilities, which of them are there, and what every row lacks."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.blending.blender import Blender, MissingMemberWarning
from lmsys_ensemble.probabilities import Logits, Probabilities
from lmsys_ensemble.runtime.combining import blend_rows
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.results import DONE, MISSING
from lmsys_ensemble.runtime.summary import RunSummary
from lmsys_ensemble.runtime.swapping import average_passes
from lmsys_ensemble.schema import Task


@dataclass(frozen=True, eq=False)
class Outcome:
    """What comes out of a run.

    Attributes
    ----------
    members : list of ndarray of shape (n_rows, n_classes)
        Probabilities of every scorer; NaN where there are none.
    present : ndarray of shape (n_rows, n_scorers)
        Where there are.
    lacking : ndarray of str of shape (n_rows,)
        Names of what a row lacks, joined by commas; empty where it lacks nothing.
    blended : ndarray of shape (n_rows, n_classes)
        The blend; of no rows where it was not asked for.
    summary : RunSummary
        What was done.
    """

    members: list[Probabilities]
    present: NDArray[np.bool_]
    lacking: NDArray[np.object_]
    blended: Probabilities
    summary: RunSummary


def forward_logits(job: Job) -> Logits:
    """Return the logits of a scorer for every row as it is, of shape (n_rows, n_classes)."""
    result: Logits = job.results.logits[job.items.original]
    return result


def present_rows(jobs: Sequence[Job]) -> NDArray[np.bool_]:
    """Return which scorers have scored which rows as they are, of shape (n_rows, n_scorers)."""
    return np.stack([job.results.status[job.items.original] == DONE for job in jobs], axis=1)


def member_probabilities(
    jobs: Sequence[Job], task: Task, options: RunOptions, twice: NDArray[np.bool_]
) -> list[Probabilities]:
    """Return every scorer's probabilities.

    Parameters
    ----------
    jobs : sequence of Job
        One a scorer.
    task : Task
        Classes and their order.
    options : RunOptions
        Say where passes are averaged.
    twice : ndarray of bool of shape (n_rows,)
        Rows whose second pass counts. Those of other rows may be there, because an earlier run wanted them or because
        they are another row's first; they count for nothing, so that the result does not depend on it.

    Returns
    -------
    list of ndarray of shape (n_rows, n_classes)
        NaN where there is no first pass; the first alone where there is no second.
    """
    members = []
    for job in jobs:
        forward = forward_logits(job)
        backward = np.full_like(forward, np.nan)
        if twice.any():
            backward[twice] = job.results.logits[job.items.swapped_pass[twice]]
        members.append(average_passes(forward, backward, task, options.swap_space))
    return members


def blend_first_passes(
    jobs: Sequence[Job], task: Task, options: RunOptions, blender: Blender
) -> tuple[Probabilities, NDArray[np.bool_]]:
    """Return the blend of the rows as they are, and which rows any scorer has scored so."""
    present = present_rows(jobs)
    members = member_probabilities(jobs, task, options, np.zeros(len(present), dtype=bool))
    return blend_rows(blender, members, present), np.asarray(present.any(axis=1))


def name_lacking(jobs: Sequence[Job], present: NDArray[np.bool_], twice: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Return the names of what every row lacks: scorers, and second passes of rows that should have one (`twice`)."""
    lacking = np.full(len(present), "", dtype=object)
    for position, job in enumerate(jobs):
        _name(lacking, ~present[:, position], job.name)
        if twice.any():
            _name(lacking, twice & present[:, position] & ~_swapped_rows(job), f"{job.name} (swapped)")
    return lacking


def count_swapped(jobs: Sequence[Job], twice: NDArray[np.bool_]) -> int:
    """Return the number of rows of which every scorer that has not failed gives two passes that count."""
    if not twice.any():
        return 0
    both = [
        (job.results.status[job.items.original] == DONE) & _swapped_rows(job) for job in jobs if job.failure is None
    ]
    return int((twice & np.all(both, axis=0)).sum()) if both else 0


def _swapped_rows(job: Job) -> NDArray[np.bool_]:
    there: NDArray[np.bool_] = job.results.status[job.items.swapped_pass] == DONE
    return there


def is_unscored(jobs: Sequence[Job], twice: NDArray[np.bool_]) -> bool:
    """Tell whether a scorer that has not failed has left out a pass that it was to score."""
    return any(
        (job.results.status[job.items.original] == MISSING).any()
        or (twice.any() and (job.results.status[job.items.swapped_pass[twice]] == MISSING).any())
        for job in jobs
        if job.failure is None
    )


def warn_of_lacking(lacking: NDArray[np.object_], why: str) -> None:
    """Warn where rows lack something; says how many and what, and `why`, where that is known."""
    rows = lacking != ""
    if rows.any():
        kinds, counts = np.unique(lacking[rows].astype(str), return_counts=True)
        listed = "; ".join(f"{count} without {kind}" for kind, count in zip(kinds, counts, strict=True))
        warnings.warn(
            f"{int(rows.sum())} of {len(rows)} rows lack something and are blended from what there is: {listed}. "
            f"The column 'fallback' names them{f'; {why}' if why else ''}",
            MissingMemberWarning,
            stacklevel=5,
        )


def _name(lacking: NDArray[np.object_], rows: NDArray[np.bool_], name: str) -> None:
    lacking[rows] = [f"{before}, {name}" if before else name for before in lacking[rows]]
