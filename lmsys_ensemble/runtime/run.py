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
from lmsys_ensemble.flags import spell
from lmsys_ensemble.journal.fingerprints import canonical_json, digest_of
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.runtime.bars import Display, Screen
from lmsys_ensemble.runtime.budget import Clock, Deadline, margins, seconds_left
from lmsys_ensemble.runtime.devices import assign_devices, reachable
from lmsys_ensemble.runtime.ending import Gate, LeftBehind, check_free
from lmsys_ensemble.runtime.failures import (
    how_to_resume,
    raise_failure,
)
from lmsys_ensemble.runtime.fallback import blend_rows, check_ready, ready_or_average, weights_of
from lmsys_ensemble.runtime.instances import Instances
from lmsys_ensemble.runtime.interrupt import Terminated, terminable
from lmsys_ensemble.runtime.items import chunk_limit, make_items, make_rows
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.outcome import (
    Outcome,
    blend_first_passes,
    count_swapped,
    is_unscored,
    member_probabilities,
    name_lacking,
    present_rows,
    warn_of_lacking,
)
from lmsys_ensemble.runtime.planning import Planner
from lmsys_ensemble.runtime.pool import Slot, make_slots
from lmsys_ensemble.runtime.progress import ScorerProgress
from lmsys_ensemble.runtime.readiness import check_swappable
from lmsys_ensemble.runtime.residence import exclusively
from lmsys_ensemble.runtime.restoring import earlier_failure, restore
from lmsys_ensemble.runtime.scheduler import Scheduler
from lmsys_ensemble.runtime.summary import (
    RunSummary,
    library_versions,
    peak_memory,
    phase_seconds,
    summarise_scorer,
)
from lmsys_ensemble.runtime.swapping import closest_to_call
from lmsys_ensemble.runtime.workers import Team, Worker, run_all
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
        How.
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
        self._fingerprints: dict[str, str] = {}
        self._twice: NDArray[np.bool_] | None = None
        self._gate = Gate()
        self._left: list[LeftBehind] = []
        self._screen = Screen([scorer.name for scorer in self.scorers], display)

    def execute(self, *, blend: bool = True) -> Outcome:
        """Score, and blend unless told otherwise.

        Raises
        ------
        ConfigError
            If exchanged passes are asked of scorers that read no texts; before anything is loaded, as all of these:
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
            check_swappable(self.scorers, spell(f"swap={self.options.swap!r}"))
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
            journal = self._open_journal(stack)
            self._plan(homes, slots, journal)
            self._score(slots, journal)
            return self._conclude(slots, journal, blend)

    # --- before -----------------------------------------------------------------------------------------------------

    def _open_journal(self, stack: ExitStack) -> Journal | None:
        if self.options.run_dir is None:
            return None
        prints = {scorer.name: scorer.fingerprint() for scorer in self.scorers if scorer.reads_texts}
        self._fingerprints = {name: digest_of(canonical_json(name, values)) for name, values in prints.items()}
        return stack.enter_context(Journal.open(self.options.run_dir, prints, rescore=self.options.rescore))

    def _plan(self, homes: Sequence[str], slots: Sequence[Slot], journal: Journal | None) -> None:
        """Make the jobs and the scheduler: all that is to be done at first."""
        recorded = journal.chunks() if journal is not None else []
        self._deadline = Deadline(self.started + (self.options.time_budget_s or np.inf), self.clock)
        self._items = make_rows(self.battles)
        if any(scorer.reads_texts for scorer in self.scorers):
            self._items = make_items(self.battles, both_ways=self.options.swap != "off")
        self._limit = chunk_limit(int(self._items.costs.sum()), len(slots))
        self._planner = Planner(self._items, self.options, self._limit, journal, recorded)
        chunks = self._planner.first()
        weights = weights_of(self.blender or Blender(), len(self.scorers))
        self._instances = Instances(slots, self.clock)
        self._jobs = [
            self._make_job(position, scorer, homes[position], slots, weights[position])
            for position, scorer in enumerate(self.scorers)
        ]
        self._instances.admit(self._jobs)
        for job in self._jobs:
            if not job.scorer.reads_texts:
                job.enqueue([np.arange(len(job.items))])
                continue
            if journal is not None:
                restore(job, journal, self.options)
            job.enqueue(chunks)
        self._make_scheduler(slots)
        for job in self._jobs:
            self._check_restored(job)

    def _make_job(self, position: int, scorer: Scorer, home: str, slots: Sequence[Slot], weight: float) -> Job:
        job = Job(
            scorer,
            self._items if scorer.reads_texts else make_rows(self.battles),
            home,
            reachable(scorer, home, [slot.device for slot in slots]),
            weight,
            ScorerProgress(
                scorer.name, home, position, self._screen, lambda: self._scheduler.is_over_for(job),
                lambda: job.count_rows(), "rows" if self.options.swap == "off" else "passes",
            ),
        )  # fmt: skip
        return job

    def _make_scheduler(self, slots: Sequence[Slot]) -> None:
        self._scheduler = Scheduler(
            self._jobs,
            slots,
            self._limit,
            self._deadline,
            keep_going=self.options.on_failure == "reweight",
            shared=self._instances.is_shared,
            sureness=self._item_sureness,
        )

    def _plan_exchanged(self) -> None:
        """Choose the rows that get a second pass, and queue it."""
        rows, twice = self._choose_rows()
        with self._gate.passed():
            self._twice = twice
            chunks = self._planner.exchanged(rows)
            for job in self._jobs:
                if job.failure is None:
                    job.exchanging = True
                    job.enqueue(chunks)
                    self._check_restored(job)

    def _choose_rows(self) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the rows whose second pass counts, closest first, and where they are, rows of the same texts too."""
        forward = self._items.forward
        if self.options.swap == "off":
            return np.empty(0, dtype=np.intp), np.zeros(len(forward), dtype=bool)
        share = 1.0 if self.options.swap == "all" else self.options.swap_share
        blender = ready_or_average(self.blender, len(self.scorers), self.task.n_classes)
        blended, known = blend_first_passes(self._jobs, self.task, self.options, blender)
        rows = closest_to_call(blended, share, known)
        return rows, np.isin(forward, forward[rows])

    def _check_restored(self, job: Job) -> None:
        failure = earlier_failure(job, self.options)
        if failure is not None:
            self._scheduler.fail(failure)

    # --- meanwhile --------------------------------------------------------------------------------------------------

    def _score(self, slots: Sequence[Slot], journal: Journal | None) -> None:
        if self.options.swaps_later:
            self._scheduler.more = self._plan_exchanged
        team = Team(self._scheduler, self._instances, journal, self.options.max_failed_rows, self._gate)
        try:
            self._left = run_all([Worker(slot, team) for slot in slots], team, self.options.time_budget_s)
        except (KeyboardInterrupt, Terminated) as error:
            error.add_note(how_to_resume(self.options.run_dir, self._jobs))
            raise
        finally:
            for job in self._jobs:
                job.progress.close()
        failures = self._scheduler.failures
        if failures and (self._scheduler.stop.is_set() or all(job.failure is not None for job in self._jobs)):
            others = "the other scorers were stopped" if self._scheduler.stop.is_set() else "no scorer is left"
            raise_failure(failures[0], others, how_to_resume(self.options.run_dir, self._jobs, failures[0]))
        for job in self._jobs:
            if job.n_to_score and job.failure is None:
                job.progress.finish()  # those that the deadline has ended, too

    def _item_sureness(self, job: Job) -> NDArray[np.float64]:
        blender = ready_or_average(self.blender, len(self.scorers), self.task.n_classes)
        blended, known = blend_first_passes(self._jobs, self.task, self.options, blender)
        sureness = np.full(len(job.items), np.nan)
        sureness[job.items.forward] = np.where(known, margins(blended), np.nan)
        return sureness

    # --- after ------------------------------------------------------------------------------------------------------

    def _conclude(self, slots: Sequence[Slot], journal: Journal | None, blend: bool) -> Outcome:
        start = time.perf_counter()
        # Where time was up before rows could be chosen, those that should have been lack their second pass.
        twice = self._choose_rows()[1] if self._twice is None else self._twice
        members, present = member_probabilities(self._jobs, self.task, self.options, twice), present_rows(self._jobs)
        lacking = name_lacking(self._jobs, present, twice)
        blended = blend_rows(self.blender or Blender(), members, present) if blend else members[0][:0]
        seconds = {"blend": time.perf_counter() - start, "total": self.clock() - self.started}
        summary = self._summarise(slots, int((lacking != "").sum()), twice, seconds)
        if journal is not None:
            try:
                journal.write_summary(summary.to_dict())
            except JournalError as error:  # everything else is done, and the summary is in the outcome, too
                logger.warning("the prediction is whole, but its summary could not be kept: %s", error)
        warn_of_lacking(lacking, summary.explain_lack())
        return Outcome(members, present, lacking, blended, summary)

    def _summarise(
        self, slots: Sequence[Slot], n_fallback: int, twice: NDArray[np.bool_], seconds: dict[str, float]
    ) -> RunSummary:
        options = asdict(self.options)
        options["run_dir"] = None if self.options.run_dir is None else str(self.options.run_dir)
        rounded = {name: round(value, 6) for name, value in seconds.items()}
        return RunSummary(
            versions=library_versions(),
            devices=[slot.device for slot in slots],
            rows=len(self.battles),
            unique_rows=len(np.unique(self._items.forward)),
            swapped_rows=count_swapped(self._jobs, twice),
            fallback_rows=n_fallback,
            time_was_up=self._deadline.is_set and is_unscored(self._jobs, twice),
            left_behind=[
                {"scorer": left.scorer.name, "device": left.device, "doing": left.doing} for left in self._left
            ],
            scorers=[summarise_scorer(job, self._fingerprints.get(job.name, ""), twice) for job in self._jobs],
            helping=[asdict(helping) for helping in self._scheduler.helpings],
            seconds={**phase_seconds(self._jobs), **rounded},
            peak_memory_bytes=peak_memory(slots),
            options=options,
        )
