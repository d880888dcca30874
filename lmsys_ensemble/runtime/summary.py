"""What a run did, as values that JSON can hold."""

import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.runtime.jobs import Job

_PACKAGES = ("lmsys-ensemble", "numpy", "pandas", "torch", "transformers")


@dataclass
class ScorerSummary:
    """What one scorer did.

    Attributes
    ----------
    name, fingerprint : str
        The scorer's name; the digest of all that can change its results.
    devices : list of str
        Where it ran.
    rows, tokens, chunks : int
        What this run has scored: distinct battles, swapped ones included, their tokens and chunks.
    resumed_rows : int
        Distinct battles that an earlier run had finished.
    unscored_rows : int
        Distinct battles that the scorer was to score and has not: time was up, or it failed.
    failed_rows : list of dict
        ``id``, ``swapped`` and ``reason`` of every row that got no logits.
    retries : int
        Batches that were run again.
    seconds : dict
        By phase (``load``, ``prepare``, ``score``, ``journal``), added up over slots.
    rows_per_second, tokens_per_second : float
        Of one slot's time for scoring; 0 where nothing was scored.
    error : str
        Why it failed as a whole; empty if it did not.
    """

    name: str
    fingerprint: str
    devices: list[str]
    rows: int
    tokens: int
    chunks: int
    resumed_rows: int
    unscored_rows: int
    failed_rows: list[dict[str, Any]]
    retries: int
    seconds: dict[str, float]
    rows_per_second: float
    tokens_per_second: float
    error: str


@dataclass
class RunSummary:
    """What a run did.

    Attributes
    ----------
    versions : dict
        Of Python, the library and its main dependencies.
    devices : list of str
        One per slot.
    rows, unique_rows : int
        Rows of the table, and distinct battles among them.
    swapped_rows : int
        Rows whose prediction averages both passes of every scorer.
    fallback_rows : int
        Rows whose prediction misses something.
    time_was_up : bool
        Whether rows miss something because there was no time for it.
    left_behind : list of dict
        ``scorer``, ``device`` and what it was ``doing``: calls that had not returned when the run had to end.
    scorers : list of ScorerSummary
        In the order of the scorers.
    helping : list of dict
        Work stealing: which slot took over work of which scorer.
    seconds : dict
        By phase; those of scorers added up over slots, ``total`` and ``blend`` by the clock.
    peak_memory_bytes : dict
        Of the process (``rss``) and of every GPU used.
    options : dict
        What the caller asked for.
    """

    versions: dict[str, str]
    devices: list[str]
    rows: int
    unique_rows: int
    swapped_rows: int
    fallback_rows: int
    time_was_up: bool
    left_behind: list[dict[str, str]]
    scorers: list[ScorerSummary]
    helping: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def explain_lack(self) -> str:
        """Return why rows lack something, as a line without a full stop; empty unless time was up."""
        if not self.time_was_up:
            return ""
        said = f"the time budget of {self.options['time_budget_s']:g} s was too short for all"
        left = [
            f"; scorer {call['scorer']!r} on {call['device']} was still {call['doing']} and was left behind"
            for call in self.left_behind
        ]
        return said + "".join(dict.fromkeys(left))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        return asdict(self)


def summarise_scorer(job: Job, fingerprint: str, twice: NDArray[np.bool_]) -> ScorerSummary:
    """Return what one scorer did; `twice` says which rows have a second pass that counts."""
    tally = job.tally
    seconds = tally.totals()
    busy = seconds.get("prepare", 0.0) + seconds.get("score", 0.0)
    return ScorerSummary(
        name=job.name,
        fingerprint=fingerprint,
        devices=list(tally.devices),
        rows=tally.n_rows,
        tokens=tally.n_tokens,
        chunks=tally.n_chunks,
        resumed_rows=tally.n_resumed,
        unscored_rows=max(job.n_to_score - tally.n_rows, 0),
        failed_rows=_failed_rows(job, twice),
        retries=job.progress.n_retries,
        seconds=seconds,
        rows_per_second=round(tally.n_rows / busy, 3) if busy else 0.0,
        tokens_per_second=round(tally.n_tokens / busy, 1) if busy else 0.0,
        error="" if job.failure is None else f"{type(job.failure).__name__}: {job.failure}",
    )


def phase_seconds(jobs: Sequence[Job]) -> dict[str, float]:
    """Return the seconds of every phase, added up over slots and scorers."""
    phases = ("load", "prepare", "score", "journal")
    totals = [job.tally.totals() for job in jobs]
    return {phase: round(sum(seconds.get(phase, 0.0) for seconds in totals), 6) for phase in phases}


def library_versions() -> dict[str, str]:
    """Return the versions of Python, the library and its main dependencies; of torch only where it was used."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        if name in ("torch", "transformers") and name not in sys.modules:
            continue
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def peak_memory(slots: Sequence[Slot]) -> dict[str, int]:
    """Return the most memory that the process has had, and tensors on every GPU used, in bytes."""
    peaks: dict[str, int] = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peaks["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    for device in sorted({slot.device for slot in slots} - {"cpu"}):
        from lmsys_ensemble.compute.hardware import peak_bytes

        peaks[device] = peak_bytes(device)
    return peaks


def _failed_rows(job: Job, twice: NDArray[np.bool_]) -> list[dict[str, Any]]:
    reasons = job.results.failed
    if not reasons:
        return []
    failed = np.fromiter(reasons, dtype=np.intp, count=len(reasons))
    found: list[dict[str, Any]] = []
    for swapped, item_of in ((False, job.items.original), (True, job.items.swapped_pass)):
        rows = np.isin(item_of, failed)
        for row in np.flatnonzero(rows & twice if swapped and len(rows) else rows).tolist():
            row_id: Any = job.items.battles.ids[row]
            row_id = row_id.item() if isinstance(row_id, np.generic) else row_id
            found.append({"id": row_id, "swapped": swapped, "reason": reasons[int(item_of[row])]})
    return found
