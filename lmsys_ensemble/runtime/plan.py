"""The plan of a run: all that is to be done at first, made before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.hosting.devices import reachable
from lmsys_ensemble.hosting.display import Screen
from lmsys_ensemble.hosting.progress import ScorerProgress
from lmsys_ensemble.hosting.scope import StopScope
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.runtime.items import Items, chunk_limit, make_items, make_rows
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.planning import Planner
from lmsys_ensemble.runtime.restoring import restore
from lmsys_ensemble.runtime.results import Results
from lmsys_ensemble.scorers.base import Scorer


@dataclass(frozen=True, eq=False)
class RunPlan:
    """What a run has to do, and where.

    Attributes
    ----------
    slots : sequence of Slot
        Where threads compute.
    items : Items
        What there is to score.
    planner : Planner
        Cuts items into chunks.
    jobs : list of Job
        One per scorer, in their order, with filled queues.
    digests : mapping of str to str
        Digest of the fingerprint per scorer that is journalled.
    """

    slots: Sequence[Slot]
    items: Items
    planner: Planner
    jobs: list[Job]
    digests: Mapping[str, str]

    @property
    def limit(self) -> int:
        """Characters of a chunk."""
        return self.planner.limit

    @property
    def journal(self) -> Journal | None:
        """Where finished chunks are kept."""
        return self.planner.journal


def plan_run(
    scorers: Sequence[Scorer],
    battles: Battles,
    options: RunOptions,
    scope: StopScope,
    screen: Screen,
    *,
    homes: Sequence[str],
    slots: Sequence[Slot],
    weights: Sequence[float],
    journal: Journal | None = None,
    digests: Mapping[str, str] | None = None,
) -> RunPlan:
    """Find the distinct battles, cut them into chunks, and queue what no earlier run has finished.

    Parameters
    ----------
    scorers : sequence of Scorer
        Not loaded.
    battles : Battles
        All rows.
    options : RunOptions
        What the caller asked for.
    scope : StopScope
        Governs the run.
    screen : Screen
        Where progress is shown.
    homes : sequence of str
        Per scorer, the device on which it starts.
    slots : sequence of Slot
        All slots of the run.
    weights : sequence of float
        Per scorer, what it counts for in the blend.
    journal : Journal, optional
        What earlier runs have finished, and where chunks are recorded.
    digests : mapping of str to str, optional
        Digest of the fingerprint per scorer that is journalled.

    Raises
    ------
    JournalError
        If the journal holds results of another number of classes.
    """
    recorded = journal.chunks() if journal is not None else []
    rows = make_rows(battles)
    reads_texts = any(scorer.reads_texts for scorer in scorers)
    items = make_items(battles, both_passes=options.swap != "off") if reads_texts else rows
    limit = chunk_limit(int(items.costs.sum()), len(slots))
    planner = Planner(items, options, limit, journal, recorded)
    chunks = planner.first()
    jobs = []
    for position, scorer in enumerate(scorers):
        results = Results(items if scorer.reads_texts else rows, scorer.task.n_classes)
        devices = reachable(scorer, homes[position], [slot.device for slot in slots])
        progress = ScorerProgress(
            scorer.name, homes[position], position, screen, scope, results.count_rows,
            "rows" if options.swap == "off" else "passes",
        )  # fmt: skip
        job = Job(scorer, results, homes[position], devices, weights[position], progress, scope)
        if scorer.reads_texts and journal is not None:
            restore(job, journal, options)
        job.enqueue(chunks if scorer.reads_texts else [np.arange(len(rows))])
        jobs.append(job)
    return RunPlan(slots, items, planner, jobs, digests or {})
