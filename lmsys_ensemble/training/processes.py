"""Several processes of one launcher (``accelerate launch``, ``torchrun``), each with a GPU of its own."""

import os

import torch

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.errors import ConfigError


def is_main() -> bool:
    """Tell whether this is the main process, the only one that writes files and reports progress."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_main() -> None:
    """Wait until every process has come here, if there are several."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def own_device(device: str) -> str:
    """Return the device of this process: the one asked for, or with ``auto`` the first, or the launcher's.

    Raises
    ------
    ConfigError
        If a launcher asks for sharding, which is not supported.
    DeviceError
        If this machine has no such device.
    """
    for variable, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(variable, "false").lower() in ("1", "true", "yes"):
            raise ConfigError(
                f"{name} is not supported: checkpoints and merged weights would be of a part of the model. Launch with "
                "data parallelism (--multi_gpu), and let quantization: nf4 make room"
            )
    available = hardware.list_devices()
    if device == "auto":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        return available[local % len(available)]
    return hardware.check_device(device)
