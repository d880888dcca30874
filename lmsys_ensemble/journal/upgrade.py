"""Journals of earlier versions, brought up to date."""

import sqlite3
from pathlib import Path

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.folder import damaged
from lmsys_ensemble.journal.plan_record import append_plan
from lmsys_ensemble.journal.records import digest_of_bytes, read_records


def upgrade(connection: sqlite3.Connection, path: Path) -> None:
    """Give the records of a journal of version 1 the checksums of version 2, within a transaction of the caller.

    Records that have changed since they were written are left as they are: their checksums stay wrong.

    Raises
    ------
    JournalError
        If its plan has changed since it was written.
    """
    for position, record, _ in list(read_records(connection, version=1)):
        if record is not None:
            connection.execute("UPDATE results SET checksum = ? WHERE position = ?", (record.checksum, position))
    plan = connection.execute("SELECT row_hashes, digest FROM plan ORDER BY position").fetchall()
    if any(not isinstance(keys, bytes) or digest_of_bytes(keys) != digest for keys, digest in plan):
        raise JournalError(damaged(path, "the plan of chunks has changed"))
    connection.execute("DELETE FROM plan")
    append_plan(connection, path, [keys for keys, _ in plan])
