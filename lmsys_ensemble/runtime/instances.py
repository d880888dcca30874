"""The loaded scorers of a run: one per slot, or one per device where slots can share a scorer."""

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmsys_ensemble.hosting.budget import Clock
from lmsys_ensemble.hosting.residence import (
    Resident,
    allocated,
    make_idle,
    residence_of,
    say_what_is_left,
)
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.memory import is_out_of_memory
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.scorers.base import Scorer

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Instance:
    """A scorer that is loaded or being loaded, and the slots that use it."""

    scorer: Scorer
    users: set[int] = field(default_factory=set)
    is_loaded: bool = False
    was_kept: bool = False
    is_spoilt: bool = False
    load_seconds: float = 0.0
    bytes_before: int = 0
    n_bytes: int | None = None
    fingerprint: dict[str, Any] = field(default_factory=dict)
    loading: threading.Lock = field(default_factory=threading.Lock)


class Instances:
    """Loads scorers where they are needed. When no slot needs one, frees it or keeps it for the next run.

    The first place gets the scorer itself, each other place a replica.

    Parameters
    ----------
    slots : sequence of Slot
        All slots of the run.
    clock : callable
        Returns seconds.
    """

    def __init__(self, slots: Sequence[Slot], clock: Clock):
        self._now = clock
        self._devices = {slot.number: slot.device for slot in slots}
        self._slots = Counter(self._devices.values())
        self._lock = threading.Lock()
        self._there: dict[tuple[int, object], _Instance] = {}
        self._jobs: list[Job] = []

    def admit(self, jobs: Sequence[Job]) -> None:
        """Take over what earlier runs have left loaded for these jobs; free what cannot be used."""
        self._jobs = list(jobs)
        for job in jobs:
            residence = residence_of(job.scorer)
            if not residence.is_held:
                residence.free()  # its holder was forgotten without `close`
                continue
            room = {device: 1 if job.scorer.shareable else self._slots[device] for device in job.devices}
            residence.free_unfit(job.scorer, room)
            if residence.residents:
                job.load_seconds = max(resident.load_seconds for resident in residence.residents)

    def is_shared(self, job: Job, slot: Slot) -> bool:
        """Tell whether the scorer is loaded on the slot's device and takes further callers."""
        with self._lock:
            instance = self._there.get(_place(job, slot))
            if instance is not None:
                return instance.is_loaded and (job.scorer.shareable or slot.number in instance.users)
            n_promised = 0 if job.scorer.shareable else self._n_to_acquire(job, slot)
            return residence_of(job.scorer).count(slot.device) > n_promised

    def acquire(self, job: Job, slot: Slot) -> tuple[Scorer, float | None]:
        """Return a loaded scorer for a slot, and the seconds that loading took (None if it was loaded)."""
        with self._lock:
            instance = self._there.get(_place(job, slot))
            if instance is None:
                instance = self._make(job, slot)
                self._there[_place(job, slot)] = instance
            instance.users.add(slot.number)
        with instance.loading:  # a second user waits for the first to have loaded it
            if instance.is_loaded:
                return instance.scorer, None
            instance.bytes_before = allocated(slot.device)
            instance.scorer.progress = job.progress
            job.progress.phase("loading")
            start = self._now()
            self._load(instance, job, slot.device)
            if self._is_alone(slot.device):
                instance.n_bytes = allocated(slot.device) - instance.bytes_before
            instance.load_seconds = self._now() - start
            instance.is_loaded = True
            return instance.scorer, instance.load_seconds

    def release(self, job: Job, slot: Slot, *, spoilt: bool = False) -> None:
        """Free a scorer, loaded or not, unless another slot uses it or a holder wants it kept.

        A scorer that has failed is freed everywhere. So is one that is `spoilt`: it failed after the run had ended.
        """
        with self._lock:
            instance = self._there.get(_place(job, slot))
            if instance is None or slot.number not in instance.users:
                return
            instance.users.discard(slot.number)
            instance.is_spoilt |= spoilt
            if instance.users:
                return
            del self._there[_place(job, slot)]
            make_idle(instance.scorer)
            residence = residence_of(job.scorer)
            failed = instance.is_spoilt or job.failure is not None
            resident = Resident(
                instance.scorer, slot.device, instance.fingerprint, instance.load_seconds, instance.n_bytes
            )
            if not failed and instance.is_loaded and residence.keep(resident):
                return
        try:
            if failed:
                residence.free()
        finally:
            self._close(instance, slot)

    def _n_to_acquire(self, job: Job, slot: Slot) -> int:
        """Return how many other slots of a slot's device work for a scorer and have yet to acquire it."""
        others = [number for number in job.slots if number != slot.number and self._devices[number] == slot.device]
        return sum((id(job), number) not in self._there for number in others)

    def _make(self, job: Job, slot: Slot) -> _Instance:
        residence = residence_of(job.scorer)
        resident = residence.take(slot.device)
        if resident is not None:
            resident.scorer.progress = job.progress
            return _Instance(
                resident.scorer, is_loaded=True, was_kept=True, load_seconds=resident.load_seconds,
                n_bytes=resident.n_bytes, fingerprint=resident.fingerprint,
            )  # fmt: skip
        taken = any(other.scorer is job.scorer for other in self._there.values()) or residence.has(job.scorer)
        return _Instance(job.scorer.replica() if taken else job.scorer)

    def _load(self, instance: _Instance, job: Job, device: str) -> None:
        """Load a scorer; where memory runs out, free the scorers that are only kept there and try once more."""
        if residence_of(job.scorer).is_held:
            instance.fingerprint = job.scorer.fingerprint()
        try:
            instance.scorer.load(device)
            return
        except Exception as error:
            if not is_out_of_memory(error) or not self._free_idle(device):
                raise
        logger.warning("%s does not fit on %s beside what is kept there, which is freed", job.name, device)
        instance.scorer.close()
        instance.bytes_before = allocated(device)
        instance.scorer.load(device)

    def _free_idle(self, device: str) -> int:
        with self._lock:
            return sum(residence_of(job.scorer).free(device) for job in self._jobs)

    def _close(self, instance: _Instance, slot: Slot) -> None:
        expected = instance.bytes_before
        if instance.was_kept and instance.n_bytes is not None:
            expected = allocated(slot.device) - instance.n_bytes
        instance.scorer.close()
        if instance.n_bytes is not None or (self._is_alone(slot.device) and not instance.was_kept):
            say_what_is_left(instance.scorer, slot.device, allocated(slot.device) - expected)

    def _is_alone(self, device: str) -> bool:
        """Whether a single slot uses the device, so that changes of its memory are due to one scorer."""
        return self._slots[device] == 1


def _place(job: Job, slot: Slot) -> tuple[int, object]:
    return id(job), slot.device if job.scorer.shareable else slot.number
