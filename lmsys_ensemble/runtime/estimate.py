"""How long a run will take: by arithmetic, and by a sample that is timed before it starts.

The seconds of the sample are scaled by the operations of all rows over those of the sample: the cost of a row grows
faster than its length.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.hosting.devices import assign_devices, reachable
from lmsys_ensemble.hosting.slots import Slot, make_slots
from lmsys_ensemble.runtime.sampling import Guess, guess_load, rows_to_time, sample_by_length, time_sample
from lmsys_ensemble.scorers.base import Costs, Scorer

GIB = 2**30

ACCELERATORS = {
    "T4": (15, 65e12),
    "P100": (16, 19e12),
    "V100": (16, 125e12),
    "L4": (22, 121e12),
    "A10": (22, 125e12),
    "A100": (80, 312e12),
    "H100": (80, 989e12),
    "H200": (141, 989e12),
}
"""Usable memory in GiB and peak half-precision operations a second (dense), from the makers' data sheets."""

UTILISATION = 1 / 3
"""Share of the peak that is assumed of a device that is not here to be timed. Published: 42 % for a
serving engine on an H100, and what comes to 23 % for the public Gemma-2 notebook on two T4."""


@dataclass(frozen=True)
class ScorerProjection:
    """What one scorer will take.

    Attributes
    ----------
    name : str
        The scorer's.
    devices : list of str
        Where it may run.
    n_tokens : int
        Of all rows after truncation; 0 for scorers without tokens.
    n_truncated : int
        Rows that are cut.
    load_seconds : float
        Measured; 0 where it was not.
    slot_seconds : float
        Of all rows on one slot, while the other slots are busy.
    weight_bytes : int or None
        Memory of its weights, where the shape is known.
    n_timed : int
        Rows that were timed; 0 where seconds are arithmetic.
    """

    name: str
    devices: list[str]
    n_tokens: int
    n_truncated: int
    load_seconds: float
    slot_seconds: float
    weight_bytes: int | None
    n_timed: int


@dataclass(frozen=True)
class Projection:
    """What a run will take.

    Attributes
    ----------
    n_rows : int
        All rows.
    slots : list of str
        Devices of the worker threads.
    seconds : float
        From start to end; scorers that may run anywhere are shared out evenly.
    scorers : list of ScorerProjection
        One per scorer.
    too_large : list of str
        Scorers whose weights do not fit into a device's memory.
    start_seconds : float
        Of `seconds`, what passes before anything is loaded (imports, reading, checks); 0 where it was not measured.
    """

    n_rows: int
    slots: list[str]
    seconds: float
    scorers: list[ScorerProjection]
    too_large: list[str] = field(default_factory=list)
    start_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as values that JSON can hold."""
        return asdict(self)


def project(
    scorers: Sequence[Scorer],
    battles: Battles,
    *,
    n_timed: int | None = None,
    devices: Sequence[str] | None = None,
    start_seconds: float = 0.0,
) -> Projection:
    """Time a sample on this machine's devices and return what all rows will take.

    Parameters
    ----------
    scorers : sequence of Scorer
        Not loaded.
    battles : Battles
        All rows.
    n_timed : int, optional
        Rows of the sample; every slot scores all of them, all slots at the same time. By default as many as can be
        loaded and scored in a tenth of the time that the run will take by arithmetic, 64 at most; where that is none,
        the arithmetic stands.
    devices : sequence of str, optional
        As for `lmsys_ensemble.Ensemble`.
    start_seconds : float
        What imports, reading and checks have taken: the run will need as long, and planning has spent it.
    """
    began = time.perf_counter()
    homes = assign_devices(scorers, devices)
    slots = make_slots(scorers, homes, devices)
    own = [[slot for slot in slots if slot.device == home] for home in homes]
    costs = [scorer.costs(battles) for scorer in scorers]
    parts = [
        _by_arithmetic(scorer, cost, part, sorted(reachable(scorer, home, [slot.device for slot in slots])))
        for scorer, cost, part, home in zip(scorers, costs, own, homes, strict=True)
    ]
    if n_timed is None:
        guesses = [
            None if cost is None or cost.flops is None else Guess(part.load_seconds, part.slot_seconds)
            for cost, part in zip(costs, parts, strict=True)
        ]
        spent = start_seconds + time.perf_counter() - began
        numbers = rows_to_time(guesses, len(battles), len(slots), makespan(parts, slots) + start_seconds, spent)
    else:
        numbers = [n_timed] * len(parts)
    parts = [
        _timed(scorer, battles, part, cost, slots_of, number) if number and len(battles) else part
        for scorer, part, cost, slots_of, number in zip(scorers, parts, costs, own, numbers, strict=True)
    ]
    seconds = start_seconds + makespan(parts, slots)
    return Projection(len(battles), [slot.device for slot in slots], seconds, parts, start_seconds=start_seconds)


def project_elsewhere(scorers: Sequence[Scorer], battles: Battles, machine: str) -> Projection:
    """Return what a run would take on other devices, such as ``2xT4``, by arithmetic.

    Raises
    ------
    ConfigError
        If the devices are unknown, or a scorer does not say what it costs.
    """
    count, name = parse_machine(machine)
    memory, peak = ACCELERATORS[name]
    slots = [Slot(number, f"{name}:{number}") for number in range(count)]
    parts, too_large = [], []
    for scorer in scorers:
        costs = scorer.costs(battles)
        if costs is None or costs.flops is None:
            raise ConfigError(f"scorer {scorer.name!r} does not say what a row costs; plan it on the machine itself")
        seconds = float(costs.flops.sum()) / (peak * UTILISATION)
        parts.append(
            ScorerProjection(
                scorer.name, [slot.device for slot in slots], int(costs.tokens.sum()), costs.n_truncated, 0.0, seconds,
                costs.weight_bytes, 0,
            )
        )  # fmt: skip
        if costs.weight_bytes is not None and costs.weight_bytes > 0.85 * memory * GIB:
            too_large.append(scorer.name)
    return Projection(len(battles), [slot.device for slot in slots], makespan(parts, slots), parts, too_large)


def parse_machine(machine: str) -> tuple[int, str]:
    """Split ``2xT4`` into 2 and ``T4``.

    Raises
    ------
    ConfigError
        If it has another form, or the device is unknown.
    """
    count, _, name = machine.rpartition("x")
    known = {device.upper(): device for device in ACCELERATORS}
    if (count and not count.isdecimal()) or name.upper() not in known or count == "0":
        raise ConfigError(
            f"unknown devices {machine!r}: give a number and one of {', '.join(ACCELERATORS)}, as in 2xT4"
        )
    return int(count or 1), known[name.upper()]


def makespan(parts: Sequence[ScorerProjection], slots: Sequence[Slot]) -> float:
    """Return the seconds until all slots are done, loading included.

    Scorers that are tied to few devices come first; those that may run on more fill up what is left evenly. No scorer
    is done before it is loaded and all its slots have worked at it, and loads come one after the other.
    """
    busy = np.zeros(len(slots))
    for part in sorted(parts, key=lambda part: len(part.devices)):
        own = np.array([slot.device in part.devices for slot in slots])
        busy[own] = _filled(busy[own], part.load_seconds + part.slot_seconds)
    alone = [
        part.load_seconds + part.slot_seconds / max(sum(slot.device in part.devices for slot in slots), 1)
        for part in parts
    ]
    return max(float(busy.max(initial=0.0)), sum(part.load_seconds for part in parts), *alone, 0.0)


def _filled(busy: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Raise the lowest of some levels to a common one, with `seconds` in all."""
    levels = np.sort(busy)
    for n_raised in range(1, len(levels) + 1):
        level = (seconds + levels[:n_raised].sum()) / n_raised
        if n_raised == len(levels) or level <= levels[n_raised]:
            raised: NDArray[np.float64] = np.maximum(busy, level)
            return raised
    return busy


def _by_arithmetic(scorer: Scorer, costs: Costs | None, slots: Sequence[Slot], devices: list[str]) -> ScorerProjection:
    """Estimate without loading anything; all zero for a scorer that does not say what a row costs."""
    if costs is None or costs.flops is None:
        tokens = (0, 0) if costs is None else (int(costs.tokens.sum()), costs.n_truncated)
        return ScorerProjection(scorer.name, devices, *tokens, 0.0, 0.0, None, 0)
    slot = slots[0]
    with ThreadPoolExecutor(1) as thread:  # how many cores torch takes is a matter of the thread
        speed = thread.submit(_speed, getattr(scorer, "dtype", "auto"), slot).result()
    return ScorerProjection(
        scorer.name,
        devices,
        int(costs.tokens.sum()),
        costs.n_truncated,
        guess_load(costs.weight_bytes),
        float(costs.flops.sum()) / speed,
        costs.weight_bytes,
        0,
    )


def _speed(dtype: str, slot: Slot) -> float:
    from lmsys_ensemble.compute.hardware import resolve_dtype
    from lmsys_ensemble.compute.speed import forward_flops_per_s

    with slot.pinned():
        return forward_flops_per_s(slot.device, resolve_dtype(dtype, slot.device), len(slot.cores))


def _timed(
    scorer: Scorer, battles: Battles, guess: ScorerProjection, costs: Costs | None, slots: Sequence[Slot], n_timed: int
) -> ScorerProjection:
    work = battles.characters().astype(np.float64) if costs is None or costs.flops is None else costs.flops
    rows = sample_by_length(work, n_timed)
    load_seconds, sample_seconds = time_sample(scorer, battles.take(np.sort(rows)), slots)
    slot_seconds = sample_seconds * float(work.sum() / max(work[rows].sum(), 1.0))
    return replace(guess, load_seconds=load_seconds, slot_seconds=slot_seconds, n_timed=len(rows))
