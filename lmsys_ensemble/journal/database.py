"""The SQLite file of a run: its tables, how it is opened, and how it is written."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from lmsys_ensemble._version import __version__
from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.folder import damaged
from lmsys_ensemble.journal.upgrade import upgrade

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x4C4D5359
"""Marks the file as a journal of this library, where SQLite and ``file`` look for such a mark ("LMSY")."""

SCHEMA_VERSION = 2
"""Version 1 had checksums that did not cover whose a record is; such journals are brought up to date when opened."""

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE plan (position INTEGER PRIMARY KEY, row_hashes BLOB NOT NULL, digest BLOB NOT NULL);
CREATE TABLE fingerprints (
    scorer TEXT NOT NULL, digest TEXT NOT NULL, settings TEXT NOT NULL, is_current INTEGER NOT NULL,
    PRIMARY KEY (scorer, digest)
);
CREATE TABLE results (
    position INTEGER PRIMARY KEY,
    scorer TEXT NOT NULL, fingerprint TEXT NOT NULL, chunk BLOB NOT NULL,
    row_hashes BLOB NOT NULL, n_classes INTEGER NOT NULL, logits BLOB NOT NULL, errors TEXT NOT NULL,
    checksum BLOB NOT NULL,
    device TEXT NOT NULL, n_tokens INTEGER NOT NULL, seconds REAL NOT NULL, committed_at REAL NOT NULL,
    UNIQUE (scorer, fingerprint, chunk)
);
"""


def open_database(path: Path) -> sqlite3.Connection:
    """Open a journal for writing, and make it if it is not there.

    Raises
    ------
    JournalError
        If the file is another program's, of a newer library, or damaged.
    sqlite3.Error
        If it is no database at all or cannot be written.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.text_factory = _decode
    try:
        new = is_new(connection)
        if not new:  # before anything is changed in a file that may be somebody else's
            check_schema(connection, path)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalError(f"{path} cannot keep a write-ahead log; give a run directory on a local disk")
        # FULL syncs the log at every commit. With NORMAL a SIGKILL would lose nothing either, but a power cut would
        # lose commits that were acknowledged. A chunk takes seconds to score and milliseconds to sync.
        connection.execute("PRAGMA synchronous = FULL")
        if new:
            _create(connection)
        check_structure(connection, path)
        _check_indices(connection, path)
        if version_of(connection) == 1:
            with transaction(connection):
                upgrade(connection, path)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a journal for reading, whether another process writes it or not."""
    address = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        # A log is kept in shared memory beside the file, which cannot be made where nothing may be written. Where
        # there is no log and nobody who could write one, the file alone is the journal.
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
    except BaseException:
        connection.close()
        raise
    connection.text_factory = _decode
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Do all or nothing of what is done inside."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, a full disk for one.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def is_new(connection: sqlite3.Connection) -> bool:
    """Tell whether a database is empty: just made, or left by a process that was killed while making it."""
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return not n_tables and not _pragma(connection, "application_id") and not _pragma(connection, "user_version")


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Make sure that a database is a journal that this library understands.

    Raises
    ------
    JournalError
        If it is not.
    """
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise JournalError(damaged(path, "it is a database of another program"))
    version = version_of(connection)
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path} was written by a newer lmsys_ensemble (journal version {version}, this one knows "
            f"{SCHEMA_VERSION}). Update the library, or give another run directory"
        )
    tables = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' ORDER BY rowid").fetchall()
    if version < 1 or [sql for (sql,) in tables] != _statements():
        raise JournalError(damaged(path, "its tables are not those of a journal"))


def check_structure(connection: sqlite3.Connection, path: Path) -> None:
    """Make sure that the file can be read as the tables that it holds.

    Raises
    ------
    JournalError
        If it cannot.
    """
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise JournalError(damaged(path, " ".join(verdict.split())))


def _check_indices(connection: sqlite3.Connection, path: Path) -> None:
    """Build indices anew that do not fit their tables; what stands in the tables has checksums of its own."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict == "ok":
        return
    if version_of(connection) == 1:  # whose a record is, only the index confirms
        raise JournalError(damaged(path, " ".join(verdict.split())))
    logger.warning("%s: an index is damaged (%s); it is built anew", path, " ".join(verdict.split()))
    try:
        connection.execute("REINDEX")
    except sqlite3.IntegrityError as error:
        raise JournalError(damaged(path, str(error))) from error
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise JournalError(damaged(path, " ".join(verdict.split())))


def _statements() -> list[str]:
    return [statement.strip() for statement in _TABLES.split(";") if statement.strip()]


def _decode(text: bytes) -> str:
    # What is no UTF-8 has changed since it was written; checksums tell, where they see a text that is another one.
    return text.decode(errors="replace")


def _create(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        for statement in _statements():
            connection.execute(statement)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        facts = [("created", created), ("lmsys_ensemble", __version__)]
        connection.executemany("INSERT INTO facts VALUES (?, ?)", facts)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def read_facts(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """Return when the journal was made (``created``) and by which version (``lmsys_ensemble``).

    Raises
    ------
    JournalError
        If it does not say.
    """
    facts = dict(connection.execute("SELECT name, value FROM facts").fetchall())
    if any(not isinstance(facts.get(name), str) for name in ("created", "lmsys_ensemble")):
        raise JournalError(damaged(path, "it does not say when and by what it was made"))
    return facts


def version_of(connection: sqlite3.Connection) -> int:
    """Return which version of the journal's format a database has."""
    return _pragma(connection, "user_version")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
