"""Loaded scorers: one a slot, or one a device for several slots where a scorer can be shared."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from lmsys_ensemble.runtime.budget import Clock
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.pool import Slot
from lmsys_ensemble.scorers.base import NoProgress, Scorer

logger = logging.getLogger(__name__)

NEGLIGIBLE_BYTES = 2**20
"""Memory of a GPU that a closed scorer may leave taken: libraries keep small workspaces for good."""


@dataclass(eq=False)
class _Instance:
    """A scorer that is loaded or being loaded, and who uses it."""

    scorer: Scorer
    is_replica: bool
    users: set[int]
    is_loaded: bool = False
    bytes_before: int = 0
    loading: threading.Lock = field(default_factory=threading.Lock)


class Instances:
    """Loads scorers where they are needed and frees them when nobody needs them any more.

    The first place gets the scorer itself, every other a replica.

    Parameters
    ----------
    slots : sequence of Slot
        All slots of the run.
    clock : callable
        Returns seconds.
    """

    def __init__(self, slots: Sequence[Slot], clock: Clock):
        self._now = clock
        devices = [slot.device for slot in slots]
        self._alone = {device for device in devices if devices.count(device) == 1}
        self._lock = threading.Lock()
        self._there: dict[tuple[int, object], _Instance] = {}

    def is_shared(self, job: Job, slot: Slot) -> bool:
        """Tell whether the scorer is loaded on the slot's device and takes further callers."""
        instance = self._there.get(_place(job, slot))
        return instance is not None and instance.is_loaded and (job.scorer.shareable or slot.number in instance.users)

    def acquire(self, job: Job, slot: Slot) -> tuple[Scorer, float | None]:
        """Return a loaded scorer for a slot, and the seconds that loading took (None if it was loaded)."""
        with self._lock:
            instance = self._there.get(_place(job, slot))
            if instance is None:
                instance = self._make(job)
                self._there[_place(job, slot)] = instance
            instance.users.add(slot.number)
        with instance.loading:  # a second user waits for the first to have loaded it
            if instance.is_loaded:
                return instance.scorer, None
            instance.bytes_before = _allocated(slot.device)
            instance.scorer.progress = job.progress
            start = self._now()
            instance.scorer.load(slot.device)
            instance.is_loaded = True
            return instance.scorer, self._now() - start

    def release(self, job: Job, slot: Slot) -> None:
        """Free a scorer, loaded or not, unless another slot uses it."""
        with self._lock:
            instance = self._there.get(_place(job, slot))
            if instance is None or slot.number not in instance.users:
                return
            instance.users.discard(slot.number)
            if instance.users:
                return
            del self._there[_place(job, slot)]
        instance.scorer.progress = NoProgress()
        instance.scorer.close()
        self._check_freed(instance, slot)

    def _make(self, job: Job) -> _Instance:
        taken = any(other.scorer is job.scorer for other in self._there.values())
        return _Instance(job.scorer.replica() if taken else job.scorer, taken, set())

    def _check_freed(self, instance: _Instance, slot: Slot) -> None:
        left = _allocated(slot.device) - instance.bytes_before
        if left > NEGLIGIBLE_BYTES and slot.device in self._alone:
            logger.warning("%s left %d bytes of %s taken after it was closed", instance.scorer.name, left, slot.device)


def _place(job: Job, slot: Slot) -> tuple[int, object]:
    return id(job), slot.device if job.scorer.shareable else slot.number


def _allocated(device: str) -> int:
    if device == "cpu":
        return 0
    from lmsys_ensemble.modeling.hardware import allocated_bytes

    return allocated_bytes(device)
