"""The recorded plan: chunks in their order, each with a digest that covers all before it, too."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.folder import damaged
from lmsys_ensemble.journal.records import checksum_of


def read_plan(connection: sqlite3.Connection, path: Path) -> list[bytes]:
    """Return the row hashes of every chunk, in order.

    Raises
    ------
    JournalError
        If one has changed, or is not where it was.
    """
    plan, digest = [], b""
    for rows, expected in connection.execute("SELECT row_hashes, digest FROM plan ORDER BY position"):
        digest = checksum_of(digest, rows) if isinstance(rows, bytes) else b""
        if digest != expected:
            raise JournalError(damaged(path, "the plan of chunks has changed"))
        plan.append(rows)
    return plan


def append_plan(connection: sqlite3.Connection, path: Path, chunks: Sequence[bytes]) -> None:
    """Append chunks, within a transaction of the caller's.

    Raises
    ------
    JournalError
        If what is there has changed.
    """
    read_plan(connection, path)
    last = connection.execute("SELECT digest FROM plan ORDER BY position DESC LIMIT 1").fetchone()
    digest: bytes = b"" if last is None else last[0]
    for rows in chunks:
        digest = checksum_of(digest, rows)
        connection.execute("INSERT INTO plan (row_hashes, digest) VALUES (?, ?)", (rows, digest))
