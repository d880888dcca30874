"""Which errors mean that memory has run out, told without importing PyTorch."""

from collections.abc import Iterator

_SAID_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "DefaultCPUAllocator", "std::bad_alloc")
"""What a plain RuntimeError says where memory has run out: the driver, cuBLAS and cuDNN, the host."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, or one that it was raised from, means that a device or the host has no memory left.

    PyTorch's own allocator raises ``torch.OutOfMemoryError``, a RuntimeError. What allocates past it says so in a
    RuntimeError (``torch.AcceleratorError`` is one), too: cuBLAS for its handles and workspaces, the driver for kernels
    and contexts, the host's allocator. PyTorch's compiler wraps what happens while it compiles.
    """
    return any(_names_memory(cause) for cause in causes(error))


def _names_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or "OutOfMemoryError" in [kind.__name__ for kind in type(error).__mro__]:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID_OF_MEMORY)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from; PyTorch's compiler keeps them as ``inner_exception``."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = getattr(cause, "inner_exception", None) or cause.__cause__
