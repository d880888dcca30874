"""Ctrl-C and SIGTERM: both end a run in order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED_CODE = 128 + int(signal.SIGTERM)
"""Exit code of a process that SIGTERM has ended, as shells state it."""


class Terminated(SystemExit):
    """SIGTERM came while a run was going on; like `SystemExit`, it ends the process, with exit code 143."""

    def __init__(self) -> None:
        super().__init__(TERMINATED_CODE)


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` in the main thread when SIGTERM comes; the handler that was there is put back afterwards.

    Only where SIGTERM would end the process at once: a program that has its own handler keeps it.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not ours:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated
