"""What the machine has: devices, number formats, cores."""

import os

import torch

from lmsys_ensemble.errors import ConfigError, DeviceError
from lmsys_ensemble.files import suggest

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def list_devices() -> list[str]:
    """Return the names of all GPUs, or ``["cpu"]`` where there is none."""
    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu"]


def check_device(device: str) -> str:
    """Return the device's full name.

    Raises
    ------
    DeviceError
        If this machine has no such device; says what it has.
    """
    name = "cuda:0" if device == "cuda" else device
    available = [*list_devices(), "cpu"]
    if name not in available:
        raise DeviceError(
            f"device {device!r} is not on this machine, which has {', '.join(dict.fromkeys(available))}. "
            "Set device to one of these, or to 'auto'"
        )
    return name


def resolve_dtype(dtype: str, device: str) -> torch.dtype:
    """Return the number format that weights and arithmetic use.

    ``auto`` is float32 on a CPU; on a GPU bfloat16 from compute capability 8.0 on and float16 below. The capability
    decides, because ``torch.cuda.is_bf16_supported()`` is true on a T4, which only emulates it.

    Raises
    ------
    ConfigError
        If the name is unknown.
    """
    if dtype == "auto":
        if not device.startswith("cuda"):
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}{suggest(dtype, [*DTYPES, 'auto'])}")
    return DTYPES[dtype]


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``float32`` for ``torch.float32``, and so on."""
    return str(dtype).removeprefix("torch.")


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(n_threads: int) -> None:
    """Set how many cores torch uses for the calling thread's operations."""
    torch.set_num_threads(n_threads)


def free_memory(device: str) -> None:
    """Give memory that nothing refers to back to the device."""
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
