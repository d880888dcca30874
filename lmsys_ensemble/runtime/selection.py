"""Which rows get a swapped pass, chosen when the original passes are done."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.hosting.scope import Failure, StopScope
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.runtime.combining import ready_or_average
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.outcome import blend_original_passes
from lmsys_ensemble.runtime.planning import Planner
from lmsys_ensemble.runtime.restoring import earlier_failure
from lmsys_ensemble.schema import Task


class SwapSelection:
    """Chooses the rows whose swapped pass counts, and queues these passes.

    Parameters
    ----------
    jobs : sequence of Job
        All scorers of the run.
    planner : Planner
        Cuts the passes into chunks.
    task : Task
        Classes and their order.
    blender : Blender, optional
        Its blend of the original passes says which rows are close; the average does where there is none, or one that
        is yet to be fitted.
    scope : StopScope
        What is queued passes its gate.
    """

    def __init__(self, jobs: Sequence[Job], planner: Planner, task: Task, blender: Blender | None, scope: StopScope):
        self._jobs = list(jobs)
        self._planner = planner
        self._task = task
        self._blender = blender
        self._scope = scope
        self._chosen: NDArray[np.bool_] | None = None

    @property
    def options(self) -> RunOptions:
        """What the caller asked for."""
        return self._planner.options

    def queue(self) -> list[Failure]:
        """Queue the passes, closest rows first, and return the scorers that failed for too many of them earlier.

        Raises
        ------
        StopScoring
            If the run has ended.
        """
        rows, twice = self._choose()
        found = []
        with self._scope.gate.passed():
            self._chosen = twice
            chunks = self._planner.swapped(rows)
            for job in self._jobs:
                if job.failure is None:
                    job.swapping = True
                    job.enqueue(chunks)
                    failure = earlier_failure(job, self.options)
                    found += [] if failure is None else [failure]
        return found

    def rows(self) -> NDArray[np.bool_]:
        """Return, per row, whether its swapped pass counts.

        Where time was up before rows could be chosen, they are chosen now: those rows lack their swapped pass.
        """
        return self._choose()[1] if self._chosen is None else self._chosen

    def _choose(self) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the rows whose swapped pass counts, closest first, and per row whether it is one, or a duplicate."""
        original = self._planner.items.original
        if self.options.swap == "off":
            return np.empty(0, dtype=np.intp), np.zeros(len(original), dtype=bool)
        share = 1.0 if self.options.swap == "all" else self.options.swap_share
        blender = ready_or_average(self._blender, len(self._jobs), self._task.n_classes)
        blended, known = blend_original_passes(self._jobs, blender)
        rows = closest_to_call(blended, share, known)
        return rows, np.isin(original, original[rows])


def closest_to_call(blended: Probabilities, share: float, known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the rows that get a swapped pass, closest first, ties in the table's order.

    Closest are the rows where A and B are most nearly as likely: there a swapped pass can change the verdict. On human
    labels this chose better than the margin of the two largest classes and the entropy (benchmarks/swap.py).

    Parameters
    ----------
    blended : ndarray of shape (n_rows, n_classes)
        The blend of the original passes alone: what an earlier run has left of swapped passes must not change the
        choice.
    share : float
        Share of the rows, rounded up.
    known : ndarray of bool of shape (n_rows,)
        Rows that have an original pass; the others cannot be chosen.
    """
    n_chosen = min(math.ceil(share * len(blended)), int(known.sum()))
    apart = np.where(known, np.abs(blended[:, 0] - blended[:, 1]), np.inf)
    return np.argsort(apart, kind="stable")[:n_chosen]
