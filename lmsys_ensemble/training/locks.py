"""Several processes on one folder: one of them at a time trains an adapter there, or one of its folds."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lmsys_ensemble.errors import ConfigError

OUTPUT_LOCK = ".train.lock"
"""Held as long as one adapter is trained in a folder."""

LOCK_FILE = ".folds.lock"
"""Held for moments: while folds are begun or removed, and while something is made of all of them."""

_PATIENCE = 0.3
"""Seconds for which the lock of a fold is tried: a process that will be refused may hold others for an instant."""


@contextmanager
def reserved(folder: Path, folds: Iterable[int]) -> Iterator[None]:
    """Keep other processes from some folds of a folder, which is made if it is not there.

    A lock goes with the process that holds it, however that ends; the hidden files of the locks stay.

    Raises
    ------
    ConfigError
        If another process holds a fold; names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for fold in sorted(folds):
            refusal = (
                f"fold {fold} in {folder} is being trained by another process. Wait until that ends or stop it, "
                "or train another fold here (--fold K); with --overwrite all folds must be free"
            )
            stack.enter_context(_held(folder / f".fold-{fold}.lock", refusal))
        yield


@contextmanager
def reserved_output(folder: Path) -> Iterator[None]:
    """Keep other processes from training an adapter in a folder, which is made if it is not there.

    The lock's file is removed at the end, and a folder that was made for it, if nothing has come into it.

    Raises
    ------
    ConfigError
        If another process trains there.
    """
    path, is_new = folder / OUTPUT_LOCK, not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    refusal = f"{folder} is being trained by another process. Wait until that ends or stop it, or give another folder"
    with _held(path, refusal):
        try:
            yield
        finally:
            with suppress(OSError):  # not where a file that is open cannot be removed
                path.unlink(missing_ok=True)
                if is_new:
                    folder.rmdir()


def _held(path: Path, refusal: str) -> AbstractContextManager[object]:
    """Take a lock, or raise `ConfigError` with what to say where another process holds it."""
    try:
        return FileLock(path, thread_local=False).acquire(timeout=_PATIENCE, poll_interval=_PATIENCE / 6)
    except Timeout as error:
        raise ConfigError(refusal) from error


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Let one process after the other look at a folder of folds and change what belongs to all of them."""
    with FileLock(folder / LOCK_FILE, thread_local=False):
        yield
