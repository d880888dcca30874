"""How close each row is by what has been scored so far: rows with a small margin are needed most."""

import threading
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.probabilities import Probabilities, softmax
from lmsys_ensemble.runtime.combining import blend_rows, ready_or_average
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.outcome import present_rows


def margins(probabilities: Probabilities) -> NDArray[np.float64]:
    """Return, per row, its largest probability less the second largest, of shape (n_rows,)."""
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    result: NDArray[np.float64] = two[:, 1] - two[:, 0]
    return result


class Margins:
    """The margins of the blend of original passes, kept up to date.

    A row is blended again only when another scorer has scored it since it was asked for last; all others keep their
    margin. May be asked from several threads, which wait for each other.

    Parameters
    ----------
    jobs : sequence of Job
        All scorers of the run.
    blender : Blender, optional
        Combines them; the average does where there is none, or one that is yet to be fitted.
    """

    def __init__(self, jobs: Sequence[Job], blender: Blender | None):
        self._jobs = list(jobs)
        self._blender = blender
        self._lock = threading.Lock()
        self._present = np.zeros_like(present_rows(self._jobs))
        self._margins = np.full(len(self._present), np.nan)

    def of(self, job: Job) -> NDArray[np.float64]:
        """Return, per item of a job, its margin, of shape (n_items,); NaN where no scorer has scored it."""
        with self._lock:
            self._update()
            result = np.full(len(job.items), np.nan)
            result[job.items.original] = self._margins
        return result

    @cached_property
    def _ready(self) -> Blender:
        return ready_or_average(self._blender, len(self._jobs), self._jobs[0].results.n_classes)

    def _update(self) -> None:
        present = present_rows(self._jobs)
        rows = np.flatnonzero((present != self._present).any(axis=1))
        if len(rows):
            members = [softmax(job.results.logits[job.items.original[rows]]) for job in self._jobs]
            self._margins[rows] = margins(blend_rows(self._ready, members, present[rows]))
            self._present = present
