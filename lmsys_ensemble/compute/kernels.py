"""Kernels of FlexAttention: for which sizes they are made, with which options, and which ones cannot be compiled here.

A kernel is compiled for each size of a batch. Few sizes serve all batches, and each kind of kernel (device, head size,
number format, soft-capping) is a function of its own to PyTorch's compiler, with a limit of its own: beyond the limit
calls raise, because attention that is not compiled makes the whole matrix of scores.
"""

import inspect
import logging
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.nn.attention.flex_attention import flex_attention

from lmsys_ensemble.memory import causes, is_out_of_memory

logger = logging.getLogger(__name__)

LEAST_SIZE = 2048
"""Tokens of the smallest batch that a kernel is made for: a power of two, such that all sizes are whole blocks."""

MOST_COMPILATIONS = 64
"""Compilations of one kind of kernel: its sizes, several times, for models with other numbers of heads."""

LARGE_SHARED_MEMORY = 160_000
"""Bytes of shared memory that a block must be able to have for three stages of loading: 8.0 and 9.0 do, 8.6 not."""

SMALL_HEAD = 64
"""Values of a head up to which the compiler takes tiles that are too large for the registers of four warps."""

_FROM_COMPILERS = ("torch._dynamo", "torch._inductor", "triton")
_SAID_BY_COMPILERS = ("No valid triton configs", "Triton Error [CUDA]", "out of resource", "Failed to find C compiler")
_LIMIT_HIT = ("FailOnRecompileLimitHit", "FailOnCacheLimitHit")


@dataclass(frozen=True)
class Kernel:
    """A kind of kernel.

    Parameters
    ----------
    device : torch.device
        Where it runs.
    head_size : int
        Values of a head.
    dtype : torch.dtype
        Number format of queries, keys and values.
    softcap : float or None
        Soft-capping of the scores.
    """

    device: torch.device
    head_size: int
    dtype: torch.dtype
    softcap: float | None = None

    def __str__(self) -> str:
        """Return what a message calls it."""
        capped = "" if self.softcap is None else f" with soft-capping at {self.softcap:g}"
        return f"head size {self.head_size} in {str(self.dtype).removeprefix('torch.')}{capped} on {self.device}"

    @property
    def suits(self) -> bool:
        """Whether the kernel is worth compiling: float32 spills registers on GPUs and takes up to a minute."""
        return self.device.type != "cuda" or self.dtype != torch.float32


def rounded_up(n_tokens: int) -> int:
    """Return the size for which a kernel is made: a power of two, or one and a half times one."""
    power = 1 << (max(n_tokens, LEAST_SIZE) - 1).bit_length()
    return power // 4 * 3 if n_tokens <= power // 4 * 3 and power > LEAST_SIZE else power


def kernel_options(kernel: Kernel) -> dict[str, Any] | None:
    """Return options that make a kernel fit its GPU where PyTorch's own choice does not; None where it does.

    Heads of up to 64 values get twice the threads, or registers spill (on an H100 hundreds of bytes a thread). Where
    shared memory is small (8.6, 8.9), two stages are loaded ahead instead of three, or heads of 256 values ask for half
    as much again as there is.
    """
    if kernel.device.type != "cuda":
        return None
    options: dict[str, Any] = {}
    if kernel.head_size <= SMALL_HEAD:
        options["num_warps"] = 8
    if shared_memory(kernel.device) < LARGE_SHARED_MEMORY:
        options["num_stages"] = 2
    return options or None


@cache
def shared_memory(device: torch.device) -> int:
    """Return the bytes of shared memory that a block of threads can have on a GPU."""
    properties = torch.cuda.get_device_properties(device)
    known: int | None = getattr(properties, "shared_memory_per_block_optin", None)
    if known is not None:
        return known
    large = (properties.major, properties.minor) in {(8, 0), (8, 7), (9, 0), (10, 0)}
    return LARGE_SHARED_MEMORY if large else 101_376


def _attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    output: Tensor = flex_attention(query, key, value, **options)
    return output


@cache
def compiled_attention(kernel: Kernel) -> Callable[..., Tensor]:
    """Return FlexAttention as one kernel.

    Raises, when it is called, where no kernel can be made: `is_compilation_failure` tells.
    """
    name = re.sub(r"\W+", "_", f"attention {kernel}")
    own = FunctionType(_attention.__code__.replace(co_name=name), globals())  # what is compiled is kept by code
    options: dict[str, Any] = {"dynamic": False, "fullgraph": True}
    if "recompile_limit" not in inspect.signature(torch.compile).parameters:
        return _with_limit(torch.compile(own, **options))
    options["recompile_limit"] = MOST_COMPILATIONS  # not as a setting: those are each thread's, and workers are threads
    return torch.compile(own, **options)


def _with_limit(compiled: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Set the limit around each call, for a PyTorch that knows it only as a setting; settings may be each thread's."""
    settings = torch._dynamo.config
    name = "recompile_limit" if hasattr(settings, "recompile_limit") else "cache_size_limit"

    def run(*tensors: Tensor, **options: Any) -> Tensor:
        with settings.patch({name: MOST_COMPILATIONS}):
            return compiled(*tensors, **options)

    return run


@cache
def soft_cap(softcap: float) -> Callable[..., Tensor]:
    """Return the change of scores that Gemma 2 makes: ``softcap * tanh(score / softcap)``."""

    def cap(score: Tensor, _batch: Tensor, _head: Tensor, _query: Tensor, _key: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap


@dataclass
class Verdicts:
    """Which kernels could not be compiled in this process, and why.

    Parameters
    ----------
    failed : dict
        Reasons, by kind of kernel and size; size 0 stands for all sizes.
    """

    failed: dict[tuple[Kernel, int], str] = field(default_factory=dict)

    def why_not(self, kernel: Kernel, size: int = 0) -> str | None:
        """Return why a kernel cannot be had at a size, or None."""
        return self.failed.get((kernel, 0)) or self.failed.get((kernel, size))

    def add(self, kernel: Kernel, size: int, error: Exception) -> None:
        """Keep, and say once, that a kernel could not be compiled; beyond PyTorch's limit only this size is lost."""
        limited = any(type(cause).__name__ in _LIMIT_HIT for cause in causes(error))
        root = list(causes(error))[-1]
        why = f"{type(root).__name__}: {next(iter(str(root).strip().splitlines()), '')}"
        if self.failed.setdefault((kernel, size if limited else 0), why) is why:
            logger.warning(
                "FlexAttention cannot be compiled for %s%s; attention goes one sequence at a time there, which is "
                "slower: %s",
                kernel,
                f" at {size} tokens" if limited else "",
                why,
            )


VERDICTS = Verdicts()


def is_compilation_failure(error: Exception) -> bool:
    """Tell whether an error means that a kernel cannot be made or loaded, and not that memory or a device failed."""
    if is_out_of_memory(error):
        return False
    return any(_comes_from_compiler(cause) for cause in causes(error))


def _comes_from_compiler(error: BaseException) -> bool:
    if isinstance(error, TorchDynamoException | subprocess.CalledProcessError):
        return True
    if any(kind.__module__.startswith(_FROM_COMPILERS) for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID_BY_COMPILERS)
