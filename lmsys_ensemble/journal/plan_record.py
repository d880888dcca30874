"""The recorded plan: chunks in their order, each with a digest that covers all chunks before it, too."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.folder import damaged
from lmsys_ensemble.journal.records import checksum_of


def read_plan(connection: sqlite3.Connection, path: Path) -> list[bytes]:
    """Return the packed keys of each chunk, in order.

    Raises
    ------
    JournalError
        If one has changed, or is not where it was.
    """
    plan, digest = [], b""
    for keys, expected in connection.execute("SELECT row_hashes, digest FROM plan ORDER BY position"):
        digest = checksum_of(digest, keys) if isinstance(keys, bytes) else b""
        if digest != expected:
            raise JournalError(damaged(path, "the plan of chunks has changed"))
        plan.append(keys)
    return plan


def append_plan(connection: sqlite3.Connection, path: Path, chunks: Sequence[bytes]) -> None:
    """Append chunks, each as packed keys, within a transaction of the caller.

    Raises
    ------
    JournalError
        If what is there has changed.
    """
    read_plan(connection, path)
    last = connection.execute("SELECT digest FROM plan ORDER BY position DESC LIMIT 1").fetchone()
    digest: bytes = b"" if last is None else last[0]
    for keys in chunks:
        digest = checksum_of(digest, keys)
        connection.execute("INSERT INTO plan (row_hashes, digest) VALUES (?, ?)", (keys, digest))
