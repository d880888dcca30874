"""Warnings that name the caller's line, and that a caller can collect in its own thread.

``warnings.catch_warnings`` changes filters that all threads share: a fit in one thread can silence a fit in another.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_PACKAGE = str(Path(__file__).parent) + os.sep
_COLLECTED: ContextVar[list[Warning] | None] = ContextVar("collected", default=None)


def warn(message: str, category: type[Warning]) -> None:
    """Emit a warning for the line that called the library; inside `collected_warnings` keep it instead."""
    collected = _COLLECTED.get()
    if collected is not None:
        collected.append(category(message))
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def collected_warnings() -> Iterator[list[Warning]]:
    """Collect what `warn` is told in this thread, and emit none of it; other warnings are left alone."""
    collected: list[Warning] = []
    token = _COLLECTED.set(collected)
    try:
        yield collected
    finally:
        _COLLECTED.reset(token)
