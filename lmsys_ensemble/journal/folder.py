"""The folder of a run: its files, its lock, and errors of disks and databases in words."""

import errno
import json
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from lmsys_ensemble.errors import ConfigError, JournalError, RunFolderError
from lmsys_ensemble.files import read_mapping, write_json

JOURNAL_FILE = "journal.sqlite"
MANIFEST_FILE = "manifest.json"
SUMMARY_FILE = "summary.json"
LOCK_FILE = "run.lock"
HOLDER_FILE = "holder.json"

OWN_FILES = (JOURNAL_FILE, MANIFEST_FILE, SUMMARY_FILE, LOCK_FILE, HOLDER_FILE)

_LOCK_PATIENCE = 0.3
"""Seconds for which a lock is tried: `find_holder` in another process may hold it for an instant."""

_DISK_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


def check_run_folder(folder: Path) -> None:
    """Make sure that a folder is a run's or can become one.

    Raises
    ------
    JournalError
        If it is no folder, or holds other files than a run's.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is a file, expected the directory of a run; give another path")
    names = [path.name for path in folder.iterdir()]
    if JOURNAL_FILE in names:
        return
    # A run that was killed while it made its folder leaves some of its own files and no journal yet.
    foreign = sorted(name for name in names if not name.lstrip(".").startswith(OWN_FILES))
    if foreign:
        raise RunFolderError(
            f"{folder} is not empty and no run directory: it holds {', '.join(foreign[:3])}"
            f"{', ...' if len(foreign) > 3 else ''} and no {JOURNAL_FILE}. Give a new or an empty directory"
        )


class RunLock:
    """Keeps other processes out of a run's folder; vanishes with the process, however that ends.

    The process id stands in a file of its own, because others may read that while the lock is held on every system.

    Parameters
    ----------
    folder : Path
        A run's folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        # Any thread may close a journal, not only the one that opened it.
        self._lock = FileLock(folder / LOCK_FILE, thread_local=False)

    def __enter__(self) -> Self:
        try:
            self._lock.acquire(timeout=_LOCK_PATIENCE, poll_interval=_LOCK_PATIENCE / 10)
        except Timeout as error:
            raise JournalError(
                f"{self.folder} is in use by {_describe_holder(self.folder)}. Wait until it ends or stop it, or give "
                "another run directory"
            ) from error
        try:
            write_json(self.folder / HOLDER_FILE, {"pid": os.getpid(), "host": socket.gethostname()})
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            (self.folder / HOLDER_FILE).unlink(missing_ok=True)
        self._lock.release()


def find_holder(folder: Path) -> int | None:
    """Return the id of the process that works in a run's folder; None if there is none, 0 if it does not say."""
    if not (folder / LOCK_FILE).exists():
        return None
    try:
        with FileLock(folder / LOCK_FILE, thread_local=False).acquire(timeout=0):
            return None
    except Timeout:
        pid = _read_holder(folder).get("pid")
        return pid if isinstance(pid, int) else 0
    except OSError:  # where nothing may be written, the lock cannot be tried
        return None


def write_manifest(folder: Path, created: str, version: str, fingerprints: Mapping[str, str]) -> None:
    """Write what a run is made of, for people to read; the journal never reads it. Fingerprints are JSON texts."""
    scorers = {name: json.loads(text) for name, text in fingerprints.items()}
    values = {"lmsys_ensemble": version, "created": created, "scorers": scorers}
    write_json(folder / MANIFEST_FILE, values)


@contextmanager
def journal_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk and the database raise into `JournalError`, which says how to go on.

    Raises
    ------
    JournalError
        For a full disk, a damaged file, a file in use, and any other error of SQLite.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise JournalError(_disk_full(folder, error)) from error
        raise JournalError(f"the run directory {folder} cannot be used: {error}") from error
    except sqlite3.Error as error:
        raise JournalError(_explain(folder, error)) from error
    except UnicodeDecodeError as error:  # SQLite's own message quotes what it found
        raise JournalError(damaged(folder / JOURNAL_FILE, str(error))) from error


def _explain(folder: Path, error: sqlite3.Error) -> str:
    path = folder / JOURNAL_FILE
    # The low byte is the kind of error, the rest says more about it: https://sqlite.org/rescode.html
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return _disk_full(folder, error)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):  # such as tables that are gone
        return damaged(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} is being written by another program ({error}); close that and start again"
    return f"{path} cannot be used: {error}. Check that it may be written and lies on a local disk"


def damaged(path: Path, why: str) -> str:
    """Return what to say of a journal that cannot be read."""
    return (
        f"{path} is damaged or no journal of a run: {why}. Put back a copy of it, or start afresh in another run "
        "directory"
    )


def _disk_full(folder: Path, error: Exception) -> str:
    return (
        f"{folder} cannot be written, its disk or quota is probably full ({error}). All chunks finished before are "
        "kept; free some space and start the same run again, it goes on from there"
    )


def _read_holder(folder: Path) -> dict[str, Any]:
    with suppress(ConfigError):
        values = read_mapping(folder / HOLDER_FILE)
        if isinstance(values, dict):
            return values
    return {}


def _describe_holder(folder: Path) -> str:
    holder = _read_holder(folder)
    if "pid" not in holder:
        return "another process"
    elsewhere = holder.get("host") != socket.gethostname()
    return f"process {holder['pid']}{' on ' + str(holder.get('host')) if elsewhere else ''}"
