"""Loading scorers ahead of runs and keeping them loaded."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

from lmsys_ensemble.errors import DeviceError, EnsembleError, ScoringError
from lmsys_ensemble.hosting.devices import assign_devices, reachable
from lmsys_ensemble.hosting.display import Display, Screen
from lmsys_ensemble.hosting.ending import check_free
from lmsys_ensemble.hosting.progress import ScorerProgress
from lmsys_ensemble.hosting.residence import (
    Residence,
    Resident,
    allocated,
    exclusively,
    make_idle,
    residence_of,
)
from lmsys_ensemble.hosting.scope import StopScope
from lmsys_ensemble.hosting.slots import Slot, make_slots
from lmsys_ensemble.memory import is_out_of_memory
from lmsys_ensemble.scorers.base import Scorer


def load_and_hold(
    scorers: Sequence[Scorer], holder: object, *, devices: Sequence[str] | None = None, display: Display = "off"
) -> None:
    """Load scorers where a run would start them, in threads of their devices, and keep them until `let_go`.

    All of them or none: where one fails, or Ctrl-C is pressed, what this call has loaded is freed.

    Parameters
    ----------
    scorers : sequence of Scorer
        Those that look probabilities up in files are left out, as the files may change. Those that are loaded already
        stay as they are, unless settings, files or devices have changed.
    holder : object
        Who keeps them; it may hold them already.
    devices : sequence of str, optional
        As for a run.
    display : {"auto", "bars", "lines", "off"}
        How progress is shown.

    Raises
    ------
    DeviceError
        If a device is missing, still taken by a call that an earlier run left behind, or not all scorers fit into its
        memory at once.
    EnsembleError
        What a scorer raised; what is no `EnsembleError` becomes a `ScoringError`.
    """
    with Screen([scorer.name for scorer in scorers], display) as screen, exclusively(scorers):
        homes = assign_devices(scorers, devices)
        slots = make_slots(scorers, homes, devices)
        check_free(scorers, slots)
        loads = [
            _Load(scorer, home, ScorerProgress(scorer.name, home, position, screen, StopScope()))
            for position, (scorer, home) in enumerate(zip(scorers, homes, strict=True))
            if scorer.reads_texts
        ]
        for load in loads:
            _make_room(load, slots)
        missing = [load for load in loads if not load.residence.count(load.device)]
        try:
            _load_all(missing, slots)
        except BaseException:
            for load in missing:
                load.residence.free(load.device)
            raise
        for load in loads:
            load.residence.holders.add(holder)


@dataclass(frozen=True)
class _Load:
    """A scorer that is to be on a device."""

    scorer: Scorer
    device: str
    progress: ScorerProgress

    @property
    def residence(self) -> Residence:
        return residence_of(self.scorer)


def _make_room(load: _Load, slots: Sequence[Slot]) -> None:
    n_slots = Counter(slot.device for slot in slots)
    allowed = reachable(load.scorer, load.device, list(n_slots))
    load.residence.free_unfit(
        load.scorer, {device: 1 if load.scorer.shareable else n_slots[device] for device in allowed}
    )


def _load_all(missing: Sequence[_Load], slots: Sequence[Slot]) -> None:
    """Load scorers, those of one device in as many threads as it has slots."""
    threads, futures = [], []
    try:
        for device in dict.fromkeys(load.device for load in missing):
            own = [slot for slot in slots if slot.device == device]
            threads.append(ThreadPoolExecutor(len(own), f"loads on {device}"))
            futures += [threads[-1].submit(_load, load, own) for load in missing if load.device == device]
        for future in futures:
            future.result()
    finally:
        for executor in threads:
            executor.shutdown(cancel_futures=True)


def _load(load: _Load, slots: Sequence[Slot]) -> None:
    scorer, device = load.scorer, load.device
    copy = scorer.replica() if load.residence.has(scorer) else scorer
    if scorer.needs_device and slots[0].cores:
        from lmsys_ensemble.compute.hardware import limit_threads

        limit_threads(len(slots[0].cores))
    fingerprint, before, start = scorer.fingerprint(), allocated(device), time.perf_counter()
    copy.progress = load.progress
    load.progress.phase("loading")
    try:
        copy.load(device)
    except BaseException as error:
        make_idle(copy).close()
        load.progress.close()
        _raise_named(error, scorer, device)
    n_bytes = allocated(device) - before if len(slots) == 1 else None  # else others load at the same time
    load.residence.residents.append(
        Resident(make_idle(copy), device, fingerprint, time.perf_counter() - start, n_bytes)
    )
    load.progress.phase("loaded")
    load.progress.close()


def _raise_named(error: BaseException, scorer: Scorer, device: str) -> NoReturn:
    """Raise an error that names scorer and device."""
    where = f"scorer {scorer.name!r} on {device}"
    if is_out_of_memory(error):
        raise DeviceError(
            f"{where} does not fit into memory beside the scorers that are loaded already ({error}). Predict without "
            "load() and 'with': scorers that do not fit together are then loaded one after the other"
        ) from error
    if isinstance(error, EnsembleError):
        error.add_note(f"{where}; what was loaded with it is freed")
        raise error
    if not isinstance(error, Exception):
        raise error
    raise ScoringError(
        f"{where} could not be loaded: {type(error).__name__}: {error}", scorer=scorer.name, device=device
    ) from error
