"""Slots: places where one worker thread computes at a time, one per GPU and one or more on the CPU."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from lmsys_ensemble.hosting.devices import reachable
from lmsys_ensemble.scorers.base import Scorer

logger = logging.getLogger(__name__)

MAX_CPU_SLOTS = 8
"""Most slots on the CPU: scorers that cannot be shared take memory per slot. With more cores, a slot has several."""


@dataclass(frozen=True)
class Slot:
    """A place where one thread computes.

    Attributes
    ----------
    number : int
        Counted over all devices.
    device : str
        ``cpu``, ``cuda:0`` and so on.
    cores : tuple of int
        CPU cores that it has for itself; empty where the operating system decides.
    """

    number: int
    device: str
    cores: tuple[int, ...] = ()

    @property
    def overlaps(self) -> bool:
        """Whether rows are prepared in another thread meanwhile; on the CPU that would only take time from scoring."""
        return self.device != "cpu"

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep the calling thread on the slot's cores.

        Only while it computes: threads that a library starts on first use inherit the cores of the thread that
        happened to be first, for good.
        """
        if not self.cores or not hasattr(os, "sched_setaffinity"):
            yield
            return
        before = os.sched_getaffinity(0)
        _set_cores(self.cores)
        try:
            yield
        finally:
            _set_cores(before)


def make_slots(scorers: Sequence[Scorer], homes: Sequence[str], allowed: Sequence[str] | None = None) -> list[Slot]:
    """Return the slots of a run.

    Parameters
    ----------
    scorers : sequence of Scorer
        Not loaded.
    homes : sequence of str
        Per scorer, the device on which it starts.
    allowed : sequence of str, optional
        Devices that may be used; one that is named several times gets that many slots.
    """
    asked = list(homes) if allowed is None else ["cuda:0" if name == "cuda" else name for name in allowed]
    if allowed is None and any(home != "cpu" for home in homes):
        from lmsys_ensemble.compute.hardware import list_devices

        asked = list(dict.fromkeys([*list_devices(), *asked]))
    used = {name for pair in zip(scorers, homes, strict=True) for name in reachable(*pair, asked)}
    gpus = [name for name in asked if name != "cpu" and name in used]
    slots = [Slot(number, device) for number, device in enumerate(gpus)]
    on_cpu = [scorer for scorer, home in zip(scorers, homes, strict=True) if home == "cpu"]
    if on_cpu:
        computing = any(scorer.needs_device for scorer in on_cpu)
        n_slots = asked.count("cpu") if allowed is not None else _default_slots(len(on_cpu), computing)
        cores = _share_cores(max(n_slots, 1), usable_cores()) if computing else [()] * max(n_slots, 1)
        slots += [Slot(len(slots) + position, "cpu", share) for position, share in enumerate(cores)]
    return slots


def usable_cores() -> list[int]:
    """Return the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _default_slots(n_scorers: int, computing: bool) -> int:
    n_slots = min(len(usable_cores()), MAX_CPU_SLOTS)
    return n_slots if computing else max(n_slots, min(n_scorers, MAX_CPU_SLOTS))


def _share_cores(n_slots: int, cores: Sequence[int]) -> list[tuple[int, ...]]:
    if n_slots > len(cores):
        return [(cores[position % len(cores)],) for position in range(n_slots)]
    bounds = [position * len(cores) // n_slots for position in range(n_slots + 1)]
    return [tuple(cores[start:stop]) for start, stop in pairwise(bounds)]


def _set_cores(cores: Sequence[int] | set[int]) -> None:
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:  # a container may forbid it; the numbers are the same without
        logger.debug("this thread cannot be kept on the cores %s: %s", sorted(cores), error)
