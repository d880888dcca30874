"""Which scorers stay loaded between runs, and which call may use a scorer now.

Every scorer object has one `Residence`, so that two ensembles share a scorer that both have: the one uses what the
other keeps loaded, and it is freed when the last of them lets go. A run has its scorers to itself. It takes all of them
at once or none, so that no two runs wait for each other.

A kept scorer was loaded by a thread that has ended since. That is safe: weights belong to the process and name their
device, and whatever belongs to a thread (cores, number of threads) is set by each run's workers before they score.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from lmsys_ensemble.errors import DeviceError
from lmsys_ensemble.flags import spell
from lmsys_ensemble.scorers.base import NoProgress, Scorer

logger = logging.getLogger(__name__)

NEGLIGIBLE_BYTES = 2**20
"""GPU memory that a closed scorer may leave occupied: libraries keep small workspaces for good."""

_ATTRIBUTE = "_residence"

_changed = threading.Condition()
_in_use: dict[int, Scorer] = {}


@dataclass(frozen=True, eq=False)
class Resident:
    """A scorer that is loaded and idle.

    Attributes
    ----------
    scorer : Scorer
        The scorer itself, or a replica of it.
    device : str
        Where it is loaded.
    fingerprint : dict
        Its fingerprint just before it was loaded.
    load_seconds : float
        How long loading took.
    n_bytes : int or None
        GPU memory that loading took; None where others used the device meanwhile.
    """

    scorer: Scorer
    device: str
    fingerprint: dict[str, Any]
    load_seconds: float = 0.0
    n_bytes: int | None = None

    def free(self) -> None:
        """Close it, and warn where its GPU memory is not given back."""
        before = allocated(self.device)
        self.scorer.close()
        if self.n_bytes is not None:
            say_what_is_left(self.scorer, self.device, allocated(self.device) - (before - self.n_bytes))


@dataclass(eq=False)
class Residence:
    """The loaded instances of one scorer, and for whom they are kept.

    Attributes
    ----------
    residents : list of Resident
        Those that are loaded and idle.
    holders : WeakSet
        Objects that want the scorer kept; one that is garbage-collected no longer counts.
    """

    residents: list[Resident] = field(default_factory=list)
    holders: WeakSet[Any] = field(default_factory=WeakSet)

    @property
    def is_held(self) -> bool:
        """Whether any holder wants the scorer kept loaded."""
        return len(self.holders) > 0

    def count(self, device: str) -> int:
        """Return how many residents are on a device."""
        return sum(resident.device == device for resident in tuple(self.residents))

    def has(self, scorer: Scorer) -> bool:
        """Tell whether the scorer itself, rather than a replica, is a resident."""
        return any(resident.scorer is scorer for resident in self.residents)

    def keep(self, resident: Resident) -> bool:
        """Keep a loaded scorer if any holder wants that, and tell whether it is kept.

        Safe beside `let_go`: a call that a run left behind may return its scorer at any time.
        """
        with _changed:
            if self.is_held:
                self.residents.append(resident)
            return self.is_held

    def take(self, device: str) -> Resident | None:
        """Take a resident from a device, if there is one."""
        for resident in self.residents:
            if resident.device == device:
                self.residents.remove(resident)
                return resident
        return None

    def free(self, device: str | None = None) -> int:
        """Close the residents, on one device or everywhere, and return their number."""
        chosen = [resident for resident in self.residents if device in (None, resident.device)]
        with ExitStack() as stack:  # an error of one keeps none of the others loaded
            for resident in chosen:
                self.residents.remove(resident)
                stack.callback(resident.free)
        return len(chosen)

    def free_unfit(self, scorer: Scorer, room: dict[str, int]) -> None:
        """Close residents that a run cannot use: on other devices, too many, or loaded from settings that have changed.

        Parameters
        ----------
        scorer : Scorer
            The scorer of this residence.
        room : dict of str to int
            Per device, how many may stay.
        """
        if not self.residents:
            return
        now, left = scorer.fingerprint(), dict(room)
        kept = []
        for resident in sorted(self.residents, key=lambda resident: resident.scorer is not scorer):
            if resident.fingerprint == now and left.get(resident.device, 0) > 0:
                left[resident.device] -= 1
                kept.append(resident)
        unfit = [resident for resident in self.residents if resident not in kept]
        self.residents[:] = kept
        with ExitStack() as stack:
            for resident in unfit:
                logger.info("%s is freed from %s: settings or devices have changed", scorer.name, resident.device)
                stack.callback(resident.free)


def residence_of(scorer: Scorer) -> Residence:
    """Return the residence of a scorer, the same one in every thread."""
    residence: Residence = vars(scorer).setdefault(_ATTRIBUTE, Residence())
    return residence


@contextmanager
def exclusively(scorers: Sequence[Scorer], seconds: float | None = None) -> Iterator[None]:
    """Wait until no other call uses any of some scorers, then reserve all of them.

    Parameters
    ----------
    scorers : sequence of Scorer
        All are reserved at once.
    seconds : float, optional
        How long to wait at most; with 0 or less not at all.

    Raises
    ------
    DeviceError
        If one of them is still used by then.
    """
    mine: dict[int, Scorer] = {}
    try:
        with _changed:
            timeout = None if seconds is None else wait_seconds(seconds)
            if not _changed.wait_for(lambda: not any(id(scorer) in _in_use for scorer in scorers), timeout):
                used = [repr(scorer.name) for scorer in scorers if id(scorer) in _in_use]
                raise still_used(f"scorer {', '.join(used)}")
            mine.update({id(scorer): scorer for scorer in scorers})
            _in_use.update(mine)
        yield
    finally:
        with _changed:
            for identity in mine:
                _in_use.pop(identity, None)
            _changed.notify_all()


def wait_seconds(seconds: float) -> float:
    """Return seconds as a lock takes them: not negative, and no more than the system can count."""
    return min(max(seconds, 0.0), threading.TIMEOUT_MAX)


def still_used(what: str) -> DeviceError:
    """Return the error of a call whose time is up before it could begin."""
    return DeviceError(
        f"{what} is still used by a call in another thread, and {spell('time_budget_s')} is over. Wait until that call "
        "has ended, or give the threads scorers of their own"
    )


def let_go(scorers: Sequence[Scorer], holder: object) -> None:
    """Remove a holder of scorers, and free the scorers that have no other."""
    with exclusively(scorers), ExitStack() as stack:
        for scorer in scorers:
            residence = residence_of(scorer)
            with _changed:
                residence.holders.discard(holder)
                is_held = residence.is_held
            if not is_held:
                stack.callback(residence.free)


def allocated(device: str) -> int:
    """Return the memory of a GPU that tensors take; 0 on the CPU."""
    if device == "cpu":
        return 0
    from lmsys_ensemble.compute.hardware import allocated_bytes

    return allocated_bytes(device)


def say_what_is_left(scorer: Scorer, device: str, n_bytes: int) -> None:
    """Warn of memory that a closed scorer has not given back, unless it is negligible."""
    if n_bytes > NEGLIGIBLE_BYTES:
        logger.warning("%s left %d bytes of %s taken after it was closed", scorer.name, n_bytes, device)


def make_idle(scorer: Scorer) -> Scorer:
    """Return a scorer after its progress has been disconnected."""
    scorer.progress = NoProgress()
    return scorer
