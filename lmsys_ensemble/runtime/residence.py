"""What of a scorer stays loaded between runs, and who may use the scorer now.

Every scorer object has one `Residence`, so that two ensembles with the same scorer know of each other: what one of
them keeps loaded the other uses, and it is freed when the last of them lets go. A run has its scorers for itself; all
of them are taken at once or none, so that two runs never wait for each other.

What is kept was loaded by a thread that has ended since. That is safe: weights belong to the process and name their
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
"""Memory of a GPU that a closed scorer may leave taken: libraries keep small workspaces for good."""

_ATTRIBUTE = "_residence"

_changed = threading.Condition()
_in_use: dict[int, Scorer] = {}


@dataclass(frozen=True, eq=False)
class Resident:
    """A scorer that is loaded and that nobody uses at the moment.

    Attributes
    ----------
    scorer : Scorer
        The scorer itself, or a replica of it.
    device : str
        Where it is.
    fingerprint : dict
        What it said of itself just before it was loaded.
    load_seconds : float
        What loading took.
    n_bytes : int or None
        Memory of a GPU that loading took; None where others used the device meanwhile.
    """

    scorer: Scorer
    device: str
    fingerprint: dict[str, Any]
    load_seconds: float = 0.0
    n_bytes: int | None = None

    def free(self) -> None:
        """Close it, and say so where a GPU's memory does not come back."""
        before = allocated(self.device)
        self.scorer.close()
        if self.n_bytes is not None:
            say_what_is_left(self.scorer, self.device, allocated(self.device) - (before - self.n_bytes))


@dataclass(eq=False)
class Residence:
    """What of one scorer is loaded, and for whom.

    Attributes
    ----------
    residents : list of Resident
        Loaded and idle.
    holders : WeakSet
        Who wants it kept; a holder that is forgotten no longer counts.
    """

    residents: list[Resident] = field(default_factory=list)
    holders: WeakSet[Any] = field(default_factory=WeakSet)

    @property
    def is_held(self) -> bool:
        """Whether somebody wants the scorer kept loaded."""
        return len(self.holders) > 0

    def count(self, device: str) -> int:
        """Return how many idle ones are on a device."""
        return sum(resident.device == device for resident in tuple(self.residents))

    def has(self, scorer: Scorer) -> bool:
        """Tell whether the scorer itself, rather than a replica, is one of those loaded."""
        return any(resident.scorer is scorer for resident in self.residents)

    def keep(self, resident: Resident) -> bool:
        """Keep one that is loaded, if somebody wants that, and tell whether it is kept.

        Safe beside `let_go`: a call that a run left behind returns its scorer when nobody waits for it any more.
        """
        with _changed:
            if self.is_held:
                self.residents.append(resident)
            return self.is_held

    def take(self, device: str) -> Resident | None:
        """Take an idle one from a device, if there is one."""
        for resident in self.residents:
            if resident.device == device:
                self.residents.remove(resident)
                return resident
        return None

    def free(self, device: str | None = None) -> int:
        """Close what is idle, on one device or everywhere, and return how many that were."""
        chosen = [resident for resident in self.residents if device in (None, resident.device)]
        with ExitStack() as stack:  # an error of one keeps none of the others loaded
            for resident in chosen:
                self.residents.remove(resident)
                stack.callback(resident.free)
        return len(chosen)

    def free_unfit(self, scorer: Scorer, room: dict[str, int]) -> None:
        """Close what a run cannot use: on other devices, too many, or loaded from what has changed since.

        Parameters
        ----------
        scorer : Scorer
            Whose residence it is.
        room : dict of str to int
            How many may be on every device.
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
    """Wait until nobody else uses any of some scorers, and keep all of them from others meanwhile.

    Parameters
    ----------
    scorers : sequence of Scorer
        Which.
    seconds : float, optional
        How long to wait at most; 0 or less: not at all.

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
    """Return seconds as a lock takes them: not negative, and not beyond what the system counts."""
    return min(max(seconds, 0.0), threading.TIMEOUT_MAX)


def still_used(what: str) -> DeviceError:
    """Return the error of a call whose time is up before it could begin."""
    return DeviceError(
        f"{what} is still used by a call in another thread, and {spell('time_budget_s')} is over. Wait until that call "
        "has ended, or give the threads scorers of their own"
    )


def let_go(scorers: Sequence[Scorer], holder: object) -> None:
    """End a holder's wish to keep scorers loaded, and free those that nobody else holds."""
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
    from lmsys_ensemble.modeling.hardware import allocated_bytes

    return allocated_bytes(device)


def say_what_is_left(scorer: Scorer, device: str, n_bytes: int) -> None:
    """Warn of memory that a closed scorer has left taken, if it is worth a word."""
    if n_bytes > NEGLIGIBLE_BYTES:
        logger.warning("%s left %d bytes of %s taken after it was closed", scorer.name, n_bytes, device)


def make_idle(scorer: Scorer) -> Scorer:
    """Return a scorer after it has been told that nobody listens to it any more."""
    scorer.progress = NoProgress()
    return scorer
