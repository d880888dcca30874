"""What the machine has: devices, number formats, cores."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from lmsys_ensemble.compute.capacity import shape_of
from lmsys_ensemble.errors import ConfigError, DeviceError
from lmsys_ensemble.settings import suggest

CPU_TOKENS, LEAST_TOKENS, MOST_TOKENS = 1024, 2048, 65536
"""Tokens of a batch: on the CPU, and the bounds on GPUs, where matrix products of 65,536 rows gain nothing more."""

USABLE, WORKSPACE = 0.9, 512 * 2**20
"""Share of a GPU's free memory that activations may take (the allocator cannot use every gap), and bytes beside them:
scores of a block of queries, an unpacked 4-bit layer, the workspaces of libraries."""

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


def is_slow(dtype: torch.dtype, device: str) -> bool:
    """Tell whether a device only emulates a number format: half precision on a CPU without instructions for it."""
    if device.startswith("cuda") or dtype == torch.float32:
        return False
    return not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``float32`` for ``torch.float32``, and so on."""
    return str(dtype).removeprefix("torch.")


def limit_threads(n_threads: int) -> None:
    """Set how many cores torch uses for the calling thread's operations."""
    torch.set_num_threads(n_threads)


def current_device(device: str | torch.device) -> AbstractContextManager[Any]:
    """Make a GPU the calling thread's current one, which it is not by itself: every thread begins with the first GPU.

    Kernels, pinned memory and workspaces that name no device go to the current one, and memory of a context with them.
    """
    return torch.cuda.device(device) if torch.device(device).type == "cuda" else nullcontext()


def free_memory(device: str) -> None:
    """Give memory that nothing refers to back to the device."""
    if device.startswith("cuda"):
        with current_device(device):
            torch.cuda.empty_cache()


def free_bytes(device: str) -> int:
    """Return the memory of a GPU that new tensors can have: what nobody uses, and what PyTorch keeps for reuse."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + kept)


def tokens_that_fit(config: Any, dtype: torch.dtype, device: str, *, packed: bool = True, int8: bool = False) -> int:
    """Return a token budget for batches from the free memory of a device.

    On a GPU, what a token takes at most (`lmsys_ensemble.compute.capacity.Shape.activation_bytes`) and a tenth more
    is held against `USABLE` of the free memory less `WORKSPACE`; a multiple of 1,024 between `LEAST_TOKENS` and
    `MOST_TOKENS`, so that a little more or less free memory gives the same batches. On the CPU, where longer batches
    are no faster, `CPU_TOKENS`.

    Parameters
    ----------
    config : PreTrainedConfig
        Of the text model.
    dtype : torch.dtype
        Of the arithmetic.
    device : str
        With the model loaded.
    packed : bool
        Whether rows are packed; transformers' own layers keep about twice as much.
    int8 : bool
        Whether the weights are 8-bit integers.
    """
    if not device.startswith("cuda"):
        return CPU_TOKENS
    shape = shape_of(config.to_dict())
    if shape is None:
        return LEAST_TOKENS
    per_token = 1.1 * shape.activation_bytes(dtype.itemsize, int8=int8) * (1 if packed else 2)
    fitting = int((USABLE * free_bytes(device) - WORKSPACE) / per_token) // 1024 * 1024
    return min(max(fitting, LEAST_TOKENS), MOST_TOKENS)


def allocated_bytes(device: str) -> int:
    """Return the memory of a GPU that tensors take; 0 on the CPU."""
    return int(torch.cuda.memory_allocated(device)) if _is_gpu(device) else 0


def peak_bytes(device: str) -> int:
    """Return the most memory of a GPU that tensors have taken at a time; 0 on the CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if _is_gpu(device) else 0


def _is_gpu(device: str) -> bool:
    return device.startswith("cuda") and torch.cuda.is_available()
