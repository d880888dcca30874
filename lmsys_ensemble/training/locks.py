"""Several processes on one folder of folds: each fold is trained by one of them at a time."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lmsys_ensemble.errors import ConfigError

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
            lock = FileLock(folder / f".fold-{fold}.lock", thread_local=False)
            try:
                stack.enter_context(lock.acquire(timeout=_PATIENCE, poll_interval=_PATIENCE / 6))
            except Timeout as error:
                raise ConfigError(
                    f"fold {fold} in {folder} is being trained by another process. Wait until that ends or stop it, "
                    "or train another fold here (--fold K); with --overwrite all folds must be free"
                ) from error
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Let one process after the other look at a folder of folds and change what belongs to all of them."""
    with FileLock(folder / LOCK_FILE, thread_local=False):
        yield


def holds_only_locks(folder: Path) -> bool:
    """Tell whether another process has made a folder of folds, but no fold in it yet."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return bool(names) and all(name.startswith(".fold") and name.endswith(".lock") for name in names)
