"""Which scorer may run where, decided and checked before anything is loaded."""

import re
from collections import Counter
from collections.abc import Sequence

from lmsys_ensemble.errors import ConfigError, DeviceError
from lmsys_ensemble.flags import spell
from lmsys_ensemble.scorers.base import Scorer


def assign_devices(scorers: Sequence[Scorer], allowed: Sequence[str] | None = None) -> list[str]:
    """Return, per scorer, the device on which it starts.

    Pinned scorers stay where they are pinned. Those with ``device="auto"`` go one after the other to the GPU with the
    fewest scorers; where there is no GPU, to the CPU.

    Parameters
    ----------
    scorers : sequence of Scorer
        Not loaded.
    allowed : sequence of str, optional
        Devices that may be used; by default all GPUs, and the CPU for what is pinned there.

    Raises
    ------
    ConfigError
        If no device is allowed.
    DeviceError
        If a device is not on this machine or not allowed; names the scorer, and what there is.
    """
    if allowed is not None and not len(allowed):
        raise ConfigError(f"{spell('devices=')} names no device; leave it out to use all")
    for name in allowed or ():
        if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
            raise ConfigError(f"{spell('devices=')} names {name!r}; a device is called cpu, cuda:0, cuda:1 and so on")
    if not any(scorer.needs_device for scorer in scorers):
        return ["cpu"] * len(scorers)
    from lmsys_ensemble.compute.hardware import check_device, list_devices

    there = list_devices() if allowed is None else [check_device(name) for name in allowed]
    devices = [""] * len(scorers)
    load = Counter(dict.fromkeys(there, 0))
    for position, scorer in enumerate(scorers):
        if not scorer.needs_device:
            devices[position] = "cpu"
        elif scorer.device != "auto":
            devices[position] = _pinned(scorer, None if allowed is None else there)
            load[devices[position]] += 1
    for position in range(len(scorers)):
        if not devices[position]:
            devices[position] = min(load, key=lambda name: (name == "cpu" and len(load) > 1, load[name]))
            load[devices[position]] += 1
    return devices


def reachable(scorer: Scorer, home: str, devices: Sequence[str]) -> frozenset[str]:
    """Return the devices that may work for a scorer: its own, or with ``device="auto"`` all of that kind."""
    if not scorer.needs_device or scorer.device != "auto":
        return frozenset({home})
    return frozenset({home} | {name for name in devices if (name == "cpu") == (home == "cpu")})


def _pinned(scorer: Scorer, allowed: Sequence[str] | None) -> str:
    from lmsys_ensemble.compute.hardware import check_device

    try:
        device = check_device(scorer.device)
    except DeviceError as error:
        raise DeviceError(f"scorer {scorer.name!r}: {error}") from error
    if allowed is not None and device not in allowed:
        raise DeviceError(
            f"scorer {scorer.name!r} is pinned to {device}, but the run may only use {', '.join(allowed)}. "
            f"Set its device to 'auto', or add the device to {spell('devices=')}"
        )
    return device
