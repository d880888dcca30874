"""What a scorer leaves behind: memory, threads, and state that all code of a process shares."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

from lmsys_ensemble.errors import ContractError
from lmsys_ensemble.scorers.base import Scorer

_MAX_KEPT_BYTES = 1 << 20
_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, threading.Thread)


@contextmanager
def check_conduct(scorer: Scorer) -> Iterator[None]:
    """Make sure that what is done with a scorer inside leaves nothing behind.

    Raises
    ------
    ContractError
        If afterwards the scorer holds arrays of more than 1 MiB that it did not hold before, threads still run, or
        shared state (NumPy's random state, torch's threads and formats, working directory, environment) changed.
    """
    state, threads, held = _shared_state(), set(threading.enumerate()), reachable_bytes(scorer)
    yield
    for what, value in _shared_state().items():
        if what in state and state[what] != value:
            raise ContractError(
                f"{scorer.name} changed {what}, which all scorers of a process share; use an object of your own, such "
                "as numpy.random.default_rng(seed), or put it back"
            )
    left = [thread.name for thread in threading.enumerate() if thread not in threads and not thread.daemon]
    if left:
        raise ContractError(f"{scorer.name}: close() left threads running: {', '.join(left)}")
    kept = reachable_bytes(scorer) - held
    if kept > _MAX_KEPT_BYTES:
        raise ContractError(
            f"{scorer.name}: close() kept {kept / 2**20:.1f} MiB of arrays; set what load() made to None"
        )


def reachable_bytes(scorer: Scorer) -> int:
    """Return the bytes of all arrays and tensors that a scorer's attributes lead to, each counted once."""
    seen: set[int] = set()
    waiting: list[Any] = list(vars(scorer).values())
    total = 0
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, _SHARED):
            continue
        seen.add(id(value))
        size = getattr(value, "nbytes", None) if hasattr(value, "dtype") else None
        if isinstance(size, int):
            total += size
        else:
            waiting.extend(gc.get_referents(value))
    return total


def _shared_state() -> dict[str, Any]:
    """Return what all code of a process shares, by what it is called; torch only where it was imported already.

    Torch's random state is left out: PEFT draws weights at random before it loads them.
    """
    state: dict[str, Any] = {
        "the random state of NumPy": _frozen(np.random.get_state()),
        "the working directory": os.getcwd(),
        "environment variables": dict(os.environ),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        state |= {
            "torch's number of threads": torch.get_num_threads(),
            "torch's default number format": torch.get_default_dtype(),
            "torch's recording of gradients": torch.is_grad_enabled(),
        }
    return state


def _frozen(value: Any) -> Any:
    return tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in value)
