"""Journals of earlier versions, brought up to date."""

import sqlite3
from pathlib import Path

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.folder import damaged
from lmsys_ensemble.journal.plan_record import append_plan
from lmsys_ensemble.journal.records import digest_of_bytes, read_records


def upgrade(connection: sqlite3.Connection, path: Path) -> None:
    """Give the records of a journal of version 1 the checksums of version 2, within a transaction of the caller's.

    Records that no longer are what was written stay so: their old checksums are no new ones.

    Raises
    ------
    JournalError
        If its plan has changed since it was written.
    """
    for position, record, _ in list(read_records(connection, version=1)):
        if record is not None:
            connection.execute("UPDATE results SET checksum = ? WHERE position = ?", (record.checksum, position))
    plan = connection.execute("SELECT row_hashes, digest FROM plan ORDER BY position").fetchall()
    if any(not isinstance(rows, bytes) or digest_of_bytes(rows) != digest for rows, digest in plan):
        raise JournalError(damaged(path, "the plan of chunks has changed"))
    connection.execute("DELETE FROM plan")
    append_plan(connection, path, [rows for rows, _ in plan])
