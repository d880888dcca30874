"""A run: every scorer over every row, on all devices."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.battles import Battles
from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.runtime.budget import Clock, Deadline
from lmsys_ensemble.runtime.devices import assign_devices, reachable
from lmsys_ensemble.runtime.failing import how_to_resume, raise_failure, too_many_failed
from lmsys_ensemble.runtime.fallback import blend_rows, check_ready, ready_or_average, weights_of
from lmsys_ensemble.runtime.fingerprints import canonical_json, digest_of
from lmsys_ensemble.runtime.instances import Instances
from lmsys_ensemble.runtime.interrupt import Terminated, terminable
from lmsys_ensemble.runtime.items import Positions, chunk_limit, make_items, make_rows, pair_up, plan_chunks
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.journal import Journal
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.outcome import (
    Outcome,
    count_swapped,
    member_probabilities,
    name_lacking,
    present_rows,
    row_sureness,
    warn_of_lacking,
)
from lmsys_ensemble.runtime.pool import Slot, make_slots
from lmsys_ensemble.runtime.progress import Display, ScorerProgress
from lmsys_ensemble.runtime.scheduler import Scheduler
from lmsys_ensemble.runtime.summary import (
    RunSummary,
    library_versions,
    peak_memory,
    phase_seconds,
    summarise_scorer,
)
from lmsys_ensemble.runtime.swapping import closest_to_call
from lmsys_ensemble.runtime.workers import Team, Worker
from lmsys_ensemble.schema import THREE_WAY, Task
from lmsys_ensemble.scorers.base import Scorer


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
        self.display = display
        self.devices = devices
        self.clock = clock
        self.started = clock() if started is None else started
        self._fingerprints: dict[str, str] = {}
        self._recorded: list[list[str]] = []

    def execute(self, *, blend: bool = True) -> Outcome:
        """Score, and blend unless told otherwise.

        Raises
        ------
        ConfigError
            If exchanged passes are asked of scorers that read no texts; before anything is loaded, as all of these:
        DeviceError
            If a device is missing.
        JournalError
            If the run directory cannot be used, or holds results of other settings.
        EnsembleError
            What the first failing scorer raised; the others are stopped. What is no `EnsembleError` becomes a
            `ScoringError` that names scorer, device and rows.
        KeyboardInterrupt, Terminated
            After all threads have ended; finished chunks are in the journal.
        """
        self._check()
        if blend and self.blender is not None:
            check_ready(self.blender, len(self.scorers), self.task.n_classes)
        homes = assign_devices(self.scorers, self.devices)
        slots = make_slots(self.scorers, homes, self.devices)
        with ExitStack() as stack:
            stack.enter_context(terminable())
            journal = self._open_journal(stack)
            self._plan(homes, slots, journal)
            self._score(slots, journal)
            return self._conclude(slots, journal, blend)

    # --- before -----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        blind = [scorer.name for scorer in self.scorers if not scorer.reads_texts]
        if self.options.swap != "off" and blind:
            raise ConfigError(
                f"swap={self.options.swap!r} needs scorers that read the texts; {', '.join(blind)} would give the same "
                "probabilities for exchanged responses"
            )

    def _open_journal(self, stack: ExitStack) -> Journal | None:
        if self.options.run_dir is None:
            return None
        prints = {scorer.name: scorer.fingerprint() for scorer in self.scorers if scorer.reads_texts}
        self._fingerprints = {name: digest_of(canonical_json(name, values)) for name, values in prints.items()}
        return stack.enter_context(Journal.open(self.options.run_dir, prints, rescore=self.options.rescore))

    def _plan(self, homes: Sequence[str], slots: Sequence[Slot], journal: Journal | None) -> None:
        """Make the jobs and the scheduler: all that is to be done at first."""
        self._recorded = journal.chunks() if journal is not None else []
        self._deadline = Deadline(self.started + (self.options.time_budget_s or np.inf), self.clock)
        self._items = make_rows(self.battles)
        if any(scorer.reads_texts for scorer in self.scorers):
            self._items = make_items(self.battles, both_ways=self.options.swap != "off")
        self._limit = chunk_limit(int(self._items.costs.sum()), len(slots))
        chunks = self._plan_forward(journal)
        weights = weights_of(self.blender or Blender(), len(self.scorers))
        self._instances = Instances(slots, self.clock)
        self._jobs = [
            self._make_job(position, scorer, homes[position], slots, weights[position])
            for position, scorer in enumerate(self.scorers)
        ]
        for job in self._jobs:
            if not job.scorer.reads_texts:
                job.enqueue([np.arange(len(job.items))])
                continue
            if journal is not None:
                finished = journal.finished(job.name)
                job.restore(
                    finished.positions(job.items.names(np.arange(len(job.items)))), finished.logits, finished.errors
                )
            job.enqueue(chunks)
            if job.n_failed > self.options.max_failed_rows * job.n_wanted:
                raise too_many_failed(job, job.reasons, "an earlier run", self.options.max_failed_rows)
        self._make_scheduler(slots)

    def _make_job(self, position: int, scorer: Scorer, home: str, slots: Sequence[Slot], weight: float) -> Job:
        job = Job(
            scorer,
            self._items if scorer.reads_texts else make_rows(self.battles),
            home,
            reachable(scorer, home, [slot.device for slot in slots]),
            weight,
            ScorerProgress(scorer.name, home, position, self.display, lambda: self._scheduler.is_over_for(job)),
        )
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

    def _plan_forward(self, journal: Journal | None) -> list[Positions]:
        items = self._items
        if self.options.swap == "all" and not self.options.swaps_later:
            order, pairs = pair_up(items)
            return self._record(journal, *plan_chunks(items, order, self._limit, self._recorded, pairs))
        return self._record(journal, *plan_chunks(items, np.unique(items.forward), self._limit, self._recorded))

    def _plan_exchanged(self, journal: Journal | None) -> None:
        """Choose the rows that get a second pass, by the blend of the first ones, and queue it."""
        share = 1.0 if self.options.swap == "all" else self.options.swap_share
        blender = ready_or_average(self.blender, len(self.scorers), self.task.n_classes)
        members = member_probabilities(self._jobs, self.task, self.options)
        rows = closest_to_call(blend_rows(blender, members, present_rows(self._jobs)), share)
        chosen = self._items.backward[rows]
        distinct, first = np.unique(chosen, return_index=True)
        order = distinct[np.argsort(first)]
        kept, added = plan_chunks(self._items, order, self._limit, self._recorded)
        chunks = self._record(journal, kept, [np.sort(chunk) for chunk in added])
        for job in self._jobs:
            if job.failure is None:
                job.exchanging = True
                job.enqueue(chunks)

    def _record(self, journal: Journal | None, kept: list[Positions], added: list[Positions]) -> list[Positions]:
        if journal is not None and added:
            journal.record_chunks([self._items.names(chunk) for chunk in added])
        return kept + added

    # --- meanwhile --------------------------------------------------------------------------------------------------

    def _score(self, slots: Sequence[Slot], journal: Journal | None) -> None:
        if self.options.swaps_later:
            self._scheduler.more = lambda: self._plan_exchanged(journal)
        team = Team(self._scheduler, self._instances, journal, self.options.max_failed_rows)
        workers = [Worker(slot, team) for slot in slots]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.wait()
        except BaseException as error:
            self._scheduler.stop.set()
            for worker in workers:
                worker.wait()
            if isinstance(error, KeyboardInterrupt | Terminated):
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
        rows = row_sureness(self._jobs, self.task, self.options, blender)
        sureness = np.full(len(job.items), np.nan)
        sureness[job.items.forward] = rows
        return sureness

    # --- after ------------------------------------------------------------------------------------------------------

    def _conclude(self, slots: Sequence[Slot], journal: Journal | None, blend: bool) -> Outcome:
        start = time.perf_counter()
        members, present = member_probabilities(self._jobs, self.task, self.options), present_rows(self._jobs)
        lacking = name_lacking(self._jobs, present, self.options)
        blended = blend_rows(self.blender or Blender(), members, present) if blend else members[0][:0]
        seconds = {"blend": time.perf_counter() - start, "total": self.clock() - self.started}
        summary = self._summarise(slots, int((lacking != "").sum()), seconds)
        if journal is not None:
            journal.write_summary(summary.to_dict())
        warn_of_lacking(lacking)
        return Outcome(members, present, lacking, blended, summary)

    def _summarise(self, slots: Sequence[Slot], n_fallback: int, seconds: dict[str, float]) -> RunSummary:
        options = asdict(self.options)
        options["run_dir"] = None if self.options.run_dir is None else str(self.options.run_dir)
        rounded = {name: round(value, 6) for name, value in seconds.items()}
        return RunSummary(
            versions=library_versions(),
            devices=[slot.device for slot in slots],
            rows=len(self.battles),
            unique_rows=len(np.unique(self._items.forward)),
            swapped_rows=count_swapped(self._jobs),
            fallback_rows=n_fallback,
            scorers=[summarise_scorer(job, self._fingerprints.get(job.name, "")) for job in self._jobs],
            helping=[asdict(helping) for helping in self._scheduler.helpings],
            seconds={**phase_seconds(self._jobs), **rounded},
            peak_memory_bytes=peak_memory(slots),
            options=options,
        )
