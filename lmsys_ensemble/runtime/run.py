"""A run: every scorer over every row, on all devices."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.hosting.budget import Clock, Deadline, seconds_left
from lmsys_ensemble.hosting.devices import assign_devices
from lmsys_ensemble.hosting.display import Display, Screen
from lmsys_ensemble.hosting.ending import LeftBehind, check_free, run_all
from lmsys_ensemble.hosting.interrupt import Terminated, terminable
from lmsys_ensemble.hosting.residence import exclusively
from lmsys_ensemble.hosting.scope import StopScope
from lmsys_ensemble.hosting.slots import make_slots
from lmsys_ensemble.journal.fingerprints import canonical_json, digest_of
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.runtime.combining import blend_rows, check_ready, weights_of
from lmsys_ensemble.runtime.failures import how_to_resume, raise_failure
from lmsys_ensemble.runtime.instances import Instances
from lmsys_ensemble.runtime.margins import Margins
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.outcome import (
    Outcome,
    count_swapped,
    is_unscored,
    name_missing,
    passes_of,
    present_rows,
    warn_of_missing,
)
from lmsys_ensemble.runtime.placement import Steal
from lmsys_ensemble.runtime.plan import RunPlan, plan_run
from lmsys_ensemble.runtime.readiness import check_swappable
from lmsys_ensemble.runtime.restoring import earlier_failure
from lmsys_ensemble.runtime.scheduler import Scheduler
from lmsys_ensemble.runtime.selection import SwapSelection
from lmsys_ensemble.runtime.summary import (
    RunSummary,
    library_versions,
    peak_memory,
    phase_seconds,
    summarise_scorer,
)
from lmsys_ensemble.runtime.workers import Team, Worker
from lmsys_ensemble.schema import THREE_WAY, Task
from lmsys_ensemble.scorers.base import Scorer

logger = logging.getLogger(__name__)


class Run:
    """Scores battles with several scorers at once, and blends.

    Parameters
    ----------
    scorers : sequence of Scorer
        Not loaded; with different names.
    battles : Battles
        At least one row.
    options : RunOptions
        How rows are scored.
    task : Task
        Classes and their order.
    blender : Blender, optional
        Tells which rows are close and what scorers count for, and combines them; by default their average.
    display : {"auto", "bars", "lines", "off"}
        How progress is shown.
    devices : sequence of str, optional
        Devices that may be used; one that is named several times has that many slots. By default all GPUs, and the
        CPU for what runs there.
    clock : callable
        Returns seconds.
    started : float, optional
        When the time budget began, by the clock; by default now.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        battles: Battles,
        options: RunOptions | None = None,
        *,
        task: Task = THREE_WAY,
        blender: Blender | None = None,
        display: Display = "auto",
        devices: Sequence[str] | None = None,
        clock: Clock = time.monotonic,
        started: float | None = None,
    ):
        self.scorers = list(scorers)
        self.battles = battles
        self.options = options or RunOptions()
        self.task = task
        self.blender = blender
        self.devices = devices
        self.clock = clock
        self.started = clock() if started is None else started
        self._screen = Screen([scorer.name for scorer in self.scorers], display)

    def execute(self, *, blend: bool = True) -> Outcome:
        """Score, and blend unless told otherwise.

        Raises
        ------
        ConfigError
            If swapped passes are asked of scorers that read no texts. This and the next two come before anything is
            loaded.
        DeviceError
            If a device is missing, or still taken by a call that an earlier run left behind; or if a scorer is used by
            a call in another thread until the time budget is over.
        JournalError
            If the run directory cannot be used, or holds results of other settings.
        EnsembleError
            What the first failing scorer raised; the others are stopped. What is no `EnsembleError` becomes a
            `ScoringError` that names scorer, device and rows.
        KeyboardInterrupt, Terminated
            After all threads have ended or, where a scorer does not return, have been left behind; finished chunks are
            in the journal.
        """
        if self.options.swap != "off":
            check_swappable(self.scorers)
        if blend and self.blender is not None:
            check_ready(self.blender, len(self.scorers), self.task.n_classes)
        with ExitStack() as stack:
            stack.enter_context(terminable())
            stack.enter_context(self._screen)
            left = seconds_left(self.options.time_budget_s, self.started, self.clock)
            stack.enter_context(exclusively(self.scorers, left))
            homes = assign_devices(self.scorers, self.devices)
            slots = make_slots(self.scorers, homes, self.devices)
            check_free(self.scorers, slots, self.options.time_budget_s)
            deadline = Deadline(self.started + (self.options.time_budget_s or np.inf), self.clock)
            scope = StopScope(deadline, keep_going=self.options.on_failure == "reweight")
            journal, digests = self._open_journal(stack)
            plan = plan_run(
                self.scorers, self.battles, self.options, scope, self._screen, homes=homes, slots=slots,
                weights=weights_of(self.blender or Blender(), len(self.scorers)), journal=journal, digests=digests,
            )  # fmt: skip
            selection = SwapSelection(plan.jobs, plan.planner, self.task, self.blender, scope)
            steals, left_behind = self._score(plan, scope, selection)
            return self._conclude(plan, scope, selection.rows(), steals, left_behind, blend)

    def _open_journal(self, stack: ExitStack) -> tuple[Journal | None, dict[str, str]]:
        """Return the journal, if one is asked for, and the digest of the fingerprint per scorer that it keeps."""
        if self.options.run_dir is None:
            return None, {}
        prints = {scorer.name: scorer.fingerprint() for scorer in self.scorers if scorer.reads_texts}
        journal = stack.enter_context(Journal.open(self.options.run_dir, prints, rescore=self.options.rescore))
        return journal, {name: digest_of(canonical_json(name, values)) for name, values in prints.items()}

    def _score(self, plan: RunPlan, scope: StopScope, selection: SwapSelection) -> tuple[list[Steal], list[LeftBehind]]:
        """Do what is planned, and raise what failed, if that ends the run; return what was stolen and left behind."""
        jobs, run_dir = plan.jobs, self.options.run_dir
        instances = Instances(plan.slots, self.clock)
        instances.admit(jobs)
        scheduler = Scheduler(
            jobs, plan.slots, plan.limit, scope, shared=instances.is_shared, margin=Margins(jobs, self.blender).of,
            more=selection.queue if self.options.swaps_later else None,
        )  # fmt: skip
        for failure in filter(None, (earlier_failure(job, self.options) for job in jobs)):
            scheduler.fail(failure)
        team = Team(scope, scheduler, instances, plan.journal, self.options.max_failed_rows)
        try:
            left = run_all([Worker(slot, team) for slot in plan.slots], scope, self.options.time_budget_s)
        except (KeyboardInterrupt, Terminated) as error:
            error.add_note(how_to_resume(run_dir, jobs))
            raise
        finally:
            for job in jobs:
                job.progress.close()
        failures = scope.failures
        if failures and (scope.is_cancelled or all(job.failure is not None for job in jobs)):
            others = "the other scorers were stopped" if scope.is_cancelled else "no scorer is left"
            raise_failure(failures[0], others, how_to_resume(run_dir, jobs, failures[0]))
        for job in jobs:
            if job.n_to_score and job.failure is None:
                job.progress.finish()  # those that the deadline has ended, too
        return scheduler.steals, left

    def _conclude(
        self, plan: RunPlan, scope: StopScope, twice: NDArray[np.bool_], steals: Sequence[Steal],
        left: Sequence[LeftBehind], blend: bool,
    ) -> Outcome:  # fmt: skip
        """Blend, and say what was done; `twice` says, per row, whether its swapped pass counts."""
        start, jobs = time.perf_counter(), plan.jobs
        passes, present = [passes_of(job, twice) for job in jobs], present_rows(jobs)
        members = [each.average(self.task, self.options.swap_space) for each in passes]
        missing = name_missing(jobs, present, twice)
        blended = blend_rows(self.blender or Blender(), members, present) if blend else members[0][:0]
        seconds = {"blend": time.perf_counter() - start, "total": self.clock() - self.started}
        options = asdict(self.options)
        options["run_dir"] = None if self.options.run_dir is None else str(self.options.run_dir)
        summary = RunSummary(
            versions=library_versions(),
            devices=[slot.device for slot in plan.slots],
            rows=len(self.battles),
            unique_rows=len(np.unique(plan.items.original)),
            swapped_rows=count_swapped(jobs, twice),
            fallback_rows=int((missing != "").sum()),
            time_was_up=scope.deadline.is_set and is_unscored(jobs, twice),
            left_behind=[{"scorer": call.scorer.name, "device": call.device, "doing": call.doing} for call in left],
            scorers=[summarise_scorer(job, plan.digests.get(job.name, ""), twice) for job in jobs],
            helping=[asdict(steal) for steal in steals],
            seconds={**phase_seconds(jobs), **{name: round(value, 6) for name, value in seconds.items()}},
            peak_memory_bytes=peak_memory(plan.slots),
            options=options,
        )
        if plan.journal is not None:
            try:
                plan.journal.write_summary(summary.to_dict())
            except JournalError as error:  # everything else is done, and the summary is in the outcome, too
                logger.warning("the prediction is whole, but its summary could not be kept: %s", error)
        warn_of_missing(missing, summary.explain_lack())
        return Outcome(passes, members, present, missing, blended, summary)
