"""What comes out of a run: both passes of every row, what they average to, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.blending.blender import Blender, MissingMemberWarning
from lmsys_ensemble.notices import warn
from lmsys_ensemble.probabilities import Logits, Probabilities, softmax, swap_classes
from lmsys_ensemble.runtime.combining import blend_rows
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.options import Space
from lmsys_ensemble.runtime.results import DONE, MISSING
from lmsys_ensemble.runtime.summary import RunSummary
from lmsys_ensemble.schema import Task


@dataclass(frozen=True, eq=False)
class Passes:
    """What one scorer gave for the rows.

    Attributes
    ----------
    original : ndarray of shape (n_rows, n_classes)
        Logits of the rows as they are; NaN where there are none.
    swapped : ndarray of shape (n_rows, n_classes)
        Logits of the rows with their responses swapped, in the classes' order as the scorer gave them: the first column
        is for the response that stood first then. NaN where no swapped pass counts.
    """

    original: Logits
    swapped: Logits

    def average(self, task: Task, space: Space) -> Probabilities:
        """Return the probabilities that both passes average to.

        Parameters
        ----------
        task : Task
            Classes and their order.
        space : {"probability", "log"}
            Where the average is taken. In log space it is the softmax of the mean logits.

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
            Those of the original pass where there is no swapped one; NaN where there is no original one.
        """
        result = softmax(self.original)
        rows = np.flatnonzero(np.isfinite(self.swapped).all(axis=1) & np.isfinite(self.original).all(axis=1))
        original = self.original[rows].astype(np.float64)
        swapped = swap_classes(self.swapped[rows], task).astype(np.float64)
        if space == "log":
            result[rows] = softmax((original + swapped) / 2)
        else:
            result[rows] = (result[rows] + softmax(swapped)) / 2
        return result


@dataclass(frozen=True, eq=False)
class Outcome:
    """What comes out of a run.

    Attributes
    ----------
    passes : list of Passes
        Per scorer, what it gave.
    members : list of ndarray of shape (n_rows, n_classes)
        Per scorer, its probabilities, both passes averaged; NaN where there are none.
    present : ndarray of bool of shape (n_rows, n_scorers)
        Where there are probabilities.
    missing : ndarray of str of shape (n_rows,)
        Per row, the names of what is missing, joined by commas; empty where nothing is.
    blended : ndarray of shape (n_rows, n_classes)
        The blend; without rows where no blend was asked for.
    summary : RunSummary
        What was done.
    """

    passes: list[Passes]
    members: list[Probabilities]
    present: NDArray[np.bool_]
    missing: NDArray[np.object_]
    blended: Probabilities
    summary: RunSummary


def passes_of(job: Job, twice: NDArray[np.bool_]) -> Passes:
    """Return what a scorer gave.

    Parameters
    ----------
    job : Job
        The scorer's.
    twice : ndarray of bool of shape (n_rows,)
        Rows whose swapped pass counts. Another row may have a swapped pass too, because an earlier run wanted it or it
        is another row's original pass. It does not count, so that the result does not depend on it.
    """
    original: Logits = job.results.logits[job.items.original]
    swapped = np.full_like(original, np.nan)
    if twice.any():
        swapped[twice] = job.results.logits[job.items.swapped_pass[twice]]
    return Passes(original, swapped)


def present_rows(jobs: Sequence[Job]) -> NDArray[np.bool_]:
    """Return which scorers have an original pass of which rows, of shape (n_rows, n_scorers)."""
    return np.stack([job.results.status[job.items.original] == DONE for job in jobs], axis=1)


def blend_original_passes(jobs: Sequence[Job], blender: Blender) -> tuple[Probabilities, NDArray[np.bool_]]:
    """Return the blend of the original passes alone, and which rows have one of any scorer."""
    present = present_rows(jobs)
    members = [softmax(job.results.logits[job.items.original]) for job in jobs]
    return blend_rows(blender, members, present), np.asarray(present.any(axis=1))


def name_missing(jobs: Sequence[Job], present: NDArray[np.bool_], twice: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Return, per row, the names of the scorers that are missing, and of those whose swapped pass is missing.

    `twice` says which rows should have a swapped pass.
    """
    missing = np.full(len(present), "", dtype=object)
    for position, job in enumerate(jobs):
        _append(missing, ~present[:, position], job.name)
        if twice.any():
            _append(missing, twice & present[:, position] & ~_has_swapped_pass(job), f"{job.name} (swapped)")
    return missing


def count_swapped(jobs: Sequence[Job], twice: NDArray[np.bool_]) -> int:
    """Count the rows for which every scorer that has not failed has both passes, and the swapped one counts."""
    if not twice.any():
        return 0
    both = [present_rows([job])[:, 0] & _has_swapped_pass(job) for job in jobs if job.failure is None]
    return int((twice & np.all(both, axis=0)).sum()) if both else 0


def is_unscored(jobs: Sequence[Job], twice: NDArray[np.bool_]) -> bool:
    """Tell whether a scorer that has not failed has left out a pass that it was to score."""
    return any(
        (job.results.status[job.items.original] == MISSING).any()
        or (twice.any() and (job.results.status[job.items.swapped_pass[twice]] == MISSING).any())
        for job in jobs
        if job.failure is None
    )


def warn_of_missing(missing: NDArray[np.object_], why: str) -> None:
    """Warn where rows lack something: how many, what, and `why`, where that is known."""
    rows = missing != ""
    if rows.any():
        kinds, counts = np.unique(missing[rows].astype(str), return_counts=True)
        listed = "; ".join(f"{count} without {kind}" for kind, count in zip(kinds, counts, strict=True))
        warn(
            f"{int(rows.sum())} of {len(rows)} rows lack something and are blended from what there is: {listed}. "
            f"The column 'fallback' names them{f'; {why}' if why else ''}",
            MissingMemberWarning,
        )


def _has_swapped_pass(job: Job) -> NDArray[np.bool_]:
    there: NDArray[np.bool_] = job.results.status[job.items.swapped_pass] == DONE
    return there


def _append(missing: NDArray[np.object_], rows: NDArray[np.bool_], name: str) -> None:
    missing[rows] = [f"{before}, {name}" if before else name for before in missing[rows]]
