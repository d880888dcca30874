"""Loading scorers ahead of runs, and keeping them."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from lmsys_ensemble.errors import DeviceError, EnsembleError, ScoringError
from lmsys_ensemble.runtime.devices import assign_devices, reachable
from lmsys_ensemble.runtime.pool import Slot, make_slots
from lmsys_ensemble.runtime.progress import Display, ScorerProgress
from lmsys_ensemble.runtime.residence import (
    Resident,
    allocated,
    exclusively,
    is_out_of_memory,
    make_idle,
    residence_of,
)
from lmsys_ensemble.scorers.base import Scorer


def load_and_hold(
    scorers: Sequence[Scorer], holder: object, *, devices: Sequence[str] | None = None, display: Display = "off"
) -> None:
    """Load scorers where a run would start them, in threads of their devices, and keep them until `let_go`.

    All of them or none: where one fails, and where Ctrl-C comes, what this call has loaded is freed.

    Parameters
    ----------
    scorers : sequence of Scorer
        Those that look probabilities up in files are left out, as the files may change. Those that are loaded already
        stay as they are, unless settings, files or devices have changed.
    holder : object
        For whom; it may hold them already.
    devices : sequence of str, optional
        As for a run.
    display : {"auto", "bars", "lines", "off"}
        How progress is shown.

    Raises
    ------
    DeviceError
        If a device is missing, or not all scorers fit into its memory at once.
    EnsembleError
        What a scorer raised; what is no `EnsembleError` becomes a `ScoringError`.
    """
    with exclusively(scorers):
        homes = assign_devices(scorers, devices)
        slots = make_slots(scorers, homes, devices)
        wanted = [(scorer, home) for scorer, home in zip(scorers, homes, strict=True) if scorer.reads_texts]
        for scorer, home in wanted:
            _make_room(scorer, home, slots)
        missing = [(scorer, home) for scorer, home in wanted if not residence_of(scorer).is_on(home)]
        try:
            _load_all(missing, slots, display)
        except BaseException:
            for scorer, home in missing:
                residence_of(scorer).free(home)
            raise
        for scorer, _ in wanted:
            residence_of(scorer).holders.add(holder)


def _make_room(scorer: Scorer, home: str, slots: Sequence[Slot]) -> None:
    n_slots = Counter(slot.device for slot in slots)
    allowed = reachable(scorer, home, list(n_slots))
    room = {device: 1 if scorer.shareable else n_slots[device] for device in allowed}
    residence_of(scorer).free_unfit(scorer, room)


def _load_all(missing: Sequence[tuple[Scorer, str]], slots: Sequence[Slot], display: Display) -> None:
    threads, futures = [], []
    try:
        for device in dict.fromkeys(home for _, home in missing):
            own = [slot for slot in slots if slot.device == device]
            executor = ThreadPoolExecutor(len(own), f"loads on {device}")
            threads.append(executor)
            for position, (scorer, home) in enumerate(missing):
                if home == device:
                    progress = ScorerProgress(scorer.name, home, position, display, lambda: False)
                    futures.append(executor.submit(_load, scorer, own[0], len(own), progress))
        for future in futures:
            future.result()
    finally:
        for executor in threads:
            executor.shutdown(cancel_futures=True)


def _load(scorer: Scorer, slot: Slot, n_threads: int, progress: ScorerProgress) -> None:
    residence, device = residence_of(scorer), slot.device
    copy = scorer.replica() if residence.has(scorer) else scorer
    if scorer.needs_device and slot.cores:
        from lmsys_ensemble.modeling.hardware import limit_threads

        limit_threads(len(slot.cores))
    fingerprint, before, start = scorer.fingerprint(), allocated(device), time.perf_counter()
    copy.progress = progress
    try:
        copy.load(device)
    except BaseException as error:
        make_idle(copy).close()
        _raise_named(error, scorer, device)
    n_bytes = allocated(device) - before if n_threads == 1 else None
    residence.residents.append(Resident(make_idle(copy), device, fingerprint, time.perf_counter() - start, n_bytes))


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
