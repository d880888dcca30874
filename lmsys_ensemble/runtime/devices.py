"""Which scorer runs where, decided and checked before anything is loaded."""

from collections import Counter
from collections.abc import Sequence

from lmsys_ensemble.errors import DeviceError
from lmsys_ensemble.scorers.base import Scorer


def assign_devices(scorers: Sequence[Scorer]) -> list[str]:
    """Return a device for every scorer.

    Pinned scorers stay where they are pinned. Those with ``device="auto"`` go one after the other to the GPU with the
    fewest scorers; where there is no GPU, to the CPU.

    Raises
    ------
    DeviceError
        If a pinned device is not on this machine; names the scorer, and what there is.
    """
    if not any(scorer.needs_device for scorer in scorers):
        return ["cpu"] * len(scorers)
    from lmsys_ensemble.modeling.hardware import check_device, list_devices

    devices = [""] * len(scorers)
    load = Counter(dict.fromkeys(list_devices(), 0))
    for position, scorer in enumerate(scorers):
        if not scorer.needs_device:
            devices[position] = "cpu"
        elif scorer.device != "auto":
            try:
                devices[position] = check_device(scorer.device)
            except DeviceError as error:
                raise DeviceError(f"scorer {scorer.name!r}: {error}") from error
            load[devices[position]] += 1
    for position in range(len(scorers)):
        if not devices[position]:
            devices[position] = min(load, key=lambda name: (name == "cpu" and len(load) > 1, load[name]))
            load[devices[position]] += 1
    return devices


def threads_per_worker(scorers: Sequence[Scorer], devices: Sequence[str]) -> int:
    """Return the cores that each scorer on the CPU may use, so that together they use each core once."""
    n_workers = sum(scorer.needs_device and device == "cpu" for scorer, device in zip(scorers, devices, strict=True))
    if not n_workers:
        return 0
    from lmsys_ensemble.modeling.hardware import usable_cores

    return max(usable_cores() // n_workers, 1)
