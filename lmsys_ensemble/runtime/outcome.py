"""What comes out of a run: probabilities, which of them are there, and what every row lacks."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.blending.blender import Blender, MissingMemberWarning
from lmsys_ensemble.probabilities import Logits, Probabilities
from lmsys_ensemble.runtime.budget import margins
from lmsys_ensemble.runtime.fallback import blend_rows
from lmsys_ensemble.runtime.jobs import DONE, Job
from lmsys_ensemble.runtime.options import RunOptions
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
    result: Logits = job.logits[job.items.forward]
    return result


def present_rows(jobs: Sequence[Job]) -> NDArray[np.bool_]:
    """Return which scorers have scored which rows as they are, of shape (n_rows, n_scorers)."""
    return np.stack([job.status[job.items.forward] == DONE for job in jobs], axis=1)


def member_probabilities(jobs: Sequence[Job], task: Task, options: RunOptions) -> list[Probabilities]:
    """Return every scorer's probabilities, of both passes where there are two."""
    members = []
    for job in jobs:
        forward = forward_logits(job)
        backward = job.logits[job.items.backward] if len(job.items.backward) else np.full_like(forward, np.nan)
        members.append(average_passes(forward, backward, task, options.swap_space))
    return members


def name_lacking(jobs: Sequence[Job], present: NDArray[np.bool_], options: RunOptions) -> NDArray[np.object_]:
    """Return the names of what every row lacks: scorers, and second passes where all rows should have one."""
    lacking = np.full(len(present), "", dtype=object)
    for position, job in enumerate(jobs):
        _name(lacking, ~present[:, position], job.name)
        if options.swap == "all":
            _name(lacking, present[:, position] & (job.status[job.items.backward] != DONE), f"{job.name} (swapped)")
    return lacking


def count_swapped(jobs: Sequence[Job]) -> int:
    """Return the number of rows that every scorer has scored both ways."""
    if not jobs or any(not len(job.items.backward) for job in jobs):
        return 0
    both = [
        (job.status[job.items.forward] == DONE) & (job.status[job.items.backward] == DONE)
        for job in jobs
        if job.failure is None
    ]
    return int(np.all(both, axis=0).sum()) if both else 0


def row_sureness(jobs: Sequence[Job], task: Task, options: RunOptions, blender: Blender) -> NDArray[np.float64]:
    """Return how sure the blend of what is there is of every row, NaN where nothing is there."""
    present = present_rows(jobs)
    blended = blend_rows(blender, member_probabilities(jobs, task, options), present)
    return np.where(present.any(axis=1), margins(blended), np.nan)


def warn_of_lacking(lacking: NDArray[np.object_]) -> None:
    """Warn where rows lack something; says how many and what."""
    rows = lacking != ""
    if rows.any():
        kinds, counts = np.unique(lacking[rows].astype(str), return_counts=True)
        listed = "; ".join(f"{count} without {kind}" for kind, count in zip(kinds, counts, strict=True))
        warnings.warn(
            f"{int(rows.sum())} of {len(rows)} rows lack something and are blended from what there is: {listed}. "
            "The column 'fallback' names them",
            MissingMemberWarning,
            stacklevel=5,
        )


def _name(lacking: NDArray[np.object_], rows: NDArray[np.bool_], name: str) -> None:
    lacking[rows] = [f"{before}, {name}" if before else name for before in lacking[rows]]
