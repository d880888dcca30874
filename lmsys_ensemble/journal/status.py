"""What a run directory tells: how much is done, how fast, and what failed; also while the run goes on."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lmsys_ensemble.errors import JournalError, RunFolderError
from lmsys_ensemble.journal.database import (
    check_schema,
    check_structure,
    is_new,
    open_to_read,
    read_facts,
    transaction,
    version_of,
)
from lmsys_ensemble.journal.finished import put_together
from lmsys_ensemble.journal.folder import JOURNAL_FILE, find_holder, journal_errors
from lmsys_ensemble.journal.records import KEY_BYTES, Record, read_records

MAX_LISTED_ERRORS = 100


@dataclass(frozen=True)
class RowError:
    """A row that got no logits: which scorer failed on it, its key, and why."""

    scorer: str
    key: str
    reason: str


@dataclass(frozen=True)
class ScorerReport:
    """What one scorer has finished under its current settings.

    Attributes
    ----------
    name : str
        The scorer.
    n_rows, n_failed : int
        Rows that are finished, failed ones included; rows that failed.
    n_chunks, n_tokens : int
        Chunks of these rows, and their tokens.
    seconds : float
        Time spent on chunks, added up over devices.
    devices : tuple of str
        Where it ran.
    first_commit, last_commit : float or None
        Seconds since 1970; None while nothing is finished.
    n_unused_chunks : int
        Chunks scored under other settings.
    """

    name: str
    n_rows: int
    n_failed: int
    n_chunks: int
    n_tokens: int
    seconds: float
    devices: tuple[str, ...]
    first_commit: float | None
    last_commit: float | None
    n_unused_chunks: int

    @property
    def rows_per_second(self) -> float | None:
        """Rows per second of one device's time; None where no time was taken."""
        return self.n_rows / self.seconds if self.seconds else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second of one device's time; None where there are none."""
        return self.n_tokens / self.seconds if self.seconds and self.n_tokens else None


@dataclass(frozen=True)
class RunReport:
    """What a run directory holds.

    Attributes
    ----------
    folder : Path
        The run directory.
    version, created : str
        Which version of the library made it, and when (ISO 8601).
    held_by : int or None
        Id of the process that works there now (0 if it cannot be told), None if there is none.
    n_planned_rows, n_planned_chunks : int
        Size of the recorded plan.
    scorers : tuple of ScorerReport
        By name.
    errors : tuple of RowError
        The first rows that failed, `MAX_LISTED_ERRORS` at most.
    """

    folder: Path
    version: str
    created: str
    held_by: int | None
    n_planned_rows: int
    n_planned_chunks: int
    scorers: tuple[ScorerReport, ...]
    errors: tuple[RowError, ...]


def read_run(folder: str | Path) -> RunReport:
    """Read how far a run is, without disturbing it.

    Parameters
    ----------
    folder : str or Path
        Run directory; another process may be working there.

    Raises
    ------
    JournalError
        If it is no run directory, or its journal is damaged or of a newer version.
    """
    folder = Path(folder)
    path = folder / JOURNAL_FILE
    if not path.is_file():
        raise RunFolderError(f"{folder} is no run directory: there is no {JOURNAL_FILE} in it")
    with journal_errors(folder), closing(open_to_read(path)) as connection:
        if is_new(connection):
            raise JournalError(f"the run in {folder} has not begun: its {JOURNAL_FILE} is empty")
        check_schema(connection, path)
        check_structure(connection, path)
        with transaction(connection, "DEFERRED"):  # one view of all tables while others write
            return _read(connection, folder)


def _read(connection: sqlite3.Connection, folder: Path) -> RunReport:
    facts = read_facts(connection, folder / JOURNAL_FILE)
    n_chunks, n_bytes = connection.execute("SELECT count(*), total(length(row_hashes)) FROM plan").fetchone()
    every = read_records(connection, version_of(connection))
    records = [record for _, record, _ in every if record is not None and record.n_rows]
    scorers, errors = [], []
    current = connection.execute("SELECT scorer, digest FROM fingerprints WHERE is_current ORDER BY scorer").fetchall()
    for name, digest in current:
        report, failed = _report([record for record in records if record.scorer == name], str(name), digest)
        scorers.append(report)
        errors.extend(failed)
    return RunReport(
        folder=folder,
        version=facts["lmsys_ensemble"],
        created=facts["created"],
        held_by=find_holder(folder),
        n_planned_rows=int(n_bytes) // KEY_BYTES,
        n_planned_chunks=n_chunks,
        scorers=tuple(scorers),
        errors=tuple(errors[:MAX_LISTED_ERRORS]),
    )


def _report(records: Sequence[Record], name: str, fingerprint: str) -> tuple[ScorerReport, list[RowError]]:
    used = [record for record in records if record.fingerprint == fingerprint]
    finished = put_together(used)
    moments = [record.committed_at for record in used]
    report = ScorerReport(
        name=name,
        n_rows=len(finished),
        n_failed=len(finished.errors),
        n_chunks=len(used),
        n_tokens=sum(record.n_tokens for record in used),
        seconds=sum(record.seconds for record in used),
        devices=tuple(sorted({record.device for record in used})),
        first_commit=min(moments, default=None),
        last_commit=max(moments, default=None),
        n_unused_chunks=len(records) - len(used),
    )
    return report, [RowError(name, key, reason) for key, reason in finished.errors.items()]
