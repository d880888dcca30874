"""The journal of a run: what is finished, kept so that no crash can lose or falsify it."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from lmsys_ensemble.errors import ContractError, JournalError, RunFolderError
from lmsys_ensemble.files import write_json
from lmsys_ensemble.flags import spell
from lmsys_ensemble.journal.database import SCHEMA_VERSION, open_database, read_facts, transaction
from lmsys_ensemble.journal.fingerprints import canonical_json, differences, digest_of
from lmsys_ensemble.journal.finished import Finished, pack_keys, read_finished, unpack_keys
from lmsys_ensemble.journal.folder import (
    JOURNAL_FILE,
    SUMMARY_FILE,
    RunLock,
    check_run_folder,
    damaged,
    journal_errors,
    write_manifest,
)
from lmsys_ensemble.journal.plan_record import append_plan, read_plan
from lmsys_ensemble.journal.records import Record, digest_of_bytes
from lmsys_ensemble.probabilities import Logits, mark_failed


class Journal:
    """Finished chunks of a run, kept in a run directory: one SQLite file with a write-ahead log.

    A row is known by its key, which is its content hash (`lmsys_ensemble.Battles.content_hashes`), a scorer by its name
    and fingerprint. A chunk is there whole or not at all, whatever ends the process. Made by `Journal.open`; a context
    manager. All methods may be called from any thread.

    Parameters
    ----------
    folder : Path
        The run directory.
    connection : sqlite3.Connection
        Its open database.
    digests : mapping of str to str
        By scorer's name, the digest of its current fingerprint.
    resources : ExitStack
        Closed together with the journal.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, digests: Mapping[str, str], resources: ExitStack):
        self.folder = folder
        self._connection = connection
        self._digests = dict(digests)
        self._resources = resources
        self._mutex = threading.Lock()

    @classmethod
    def open(cls, folder: str | Path, fingerprints: Mapping[str, Mapping[str, Any]], *, rescore: bool = False) -> Self:
        """Open the journal of a run directory, and make both if they are not there.

        Parameters
        ----------
        folder : str or Path
            Run directory, on a local disk: new, empty, or of an earlier run.
        fingerprints : mapping
            By scorer's name, its fingerprint. Scorers that the run has not seen are added; those that it has seen and
            that are not named here are left alone.
        rescore : bool
            Take fingerprints that differ from those of the earlier run. Results under the old ones stay in the file,
            unused, and count again when a later run comes back to them, again with `rescore`.

        Raises
        ------
        JournalError
            If another process holds the directory, a fingerprint differs, the directory is somebody else's, or its
            journal is damaged, of a newer version or cannot be written.
        ContractError
            If a fingerprint holds what JSON cannot, or a name is no valid Unicode.
        """
        folder = Path(folder)
        _check_names(fingerprints)
        settings = {name: canonical_json(name, fingerprint) for name, fingerprint in fingerprints.items()}
        with journal_errors(folder), ExitStack() as stack:
            check_run_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(RunLock(folder))
            connection = stack.enter_context(closing(open_database(folder / JOURNAL_FILE)))
            _take_fingerprints(connection, folder, settings, rescore)
            facts = read_facts(connection, folder / JOURNAL_FILE)
            current = _current(connection, folder)
            write_manifest(folder, facts["created"], facts["lmsys_ensemble"], current)
            digests = {name: digest_of(text) for name, text in settings.items()}
            return cls(folder, connection, digests, stack.pop_all())

    def finished(self, scorer: str) -> Finished:
        """Return all rows that a scorer has finished under its current fingerprint.

        Raises
        ------
        JournalError
            If the journal was not opened for that scorer, or cannot be read.
        """
        with self._mutex, journal_errors(self.folder):
            return read_finished(self._connection, scorer, self._digest(scorer), SCHEMA_VERSION)

    def chunks(self) -> list[list[str]]:
        """Return the plan: the keys of each recorded chunk, in order.

        The last bits of a row's logits depend on the rows that share its batch, so a run that is resumed must make the
        same chunks to get the same numbers.
        """
        with self._mutex, journal_errors(self.folder):
            return [unpack_keys(keys) for keys in read_plan(self._connection, self.folder / JOURNAL_FILE)]

    def record_chunks(self, chunks: Sequence[Sequence[str]]) -> None:
        """Append chunks to the plan: all of them, or none if something goes wrong."""
        packed = [pack_keys(keys) for keys in chunks]
        with self._mutex, journal_errors(self.folder), transaction(self._connection):
            append_plan(self._connection, self.folder / JOURNAL_FILE, packed)

    def commit(
        self,
        scorer: str,
        keys: Sequence[str],
        logits: Logits,
        errors: Mapping[int, str],
        *,
        device: str,
        n_tokens: int,
        seconds: float,
    ) -> None:
        """Keep a finished chunk; when this returns, neither a crash nor a power cut can take it away.

        Parameters
        ----------
        scorer : str
            Name of the scorer.
        keys : sequence of str
            Keys of the chunk's rows.
        logits : float32 ndarray of shape (n_rows, n_classes)
            In the order of `keys`.
        errors : mapping of int to str
            By position in `keys`, why a row failed; NaN is kept instead of its logits. Rows whose logits are not finite
            count as failed, too.
        device : str
            Where it was scored.
        n_tokens : int
            Tokens of the chunk (0 for scorers without tokens).
        seconds : float
            How long it took.

        Raises
        ------
        JournalError
            If it cannot be written (a full disk, say); earlier chunks are not touched. Or if the arguments do not
            fit each other.
        """
        packed = pack_keys(keys)
        values, reasons = _check_results(logits, len(keys), errors)
        record = Record(
            scorer=scorer,
            fingerprint=self._digest(scorer),
            chunk=digest_of_bytes(packed),
            row_hashes=packed,
            n_classes=values.shape[1],
            logits=values.astype("<f4").tobytes(),
            errors=json.dumps({str(position): why for position, why in sorted(reasons.items())}),
            device=device,
            n_tokens=int(n_tokens),
            seconds=float(seconds),
            committed_at=time.time(),
        )
        columns = {**asdict(record), "checksum": record.checksum}
        names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
        # The same chunk again takes the place of its old record and, with a new position, counts as the last.
        statement = f"INSERT OR REPLACE INTO results ({names}) VALUES ({marks})"  # noqa: S608 - names of ours
        with self._mutex, journal_errors(self.folder), transaction(self._connection):
            self._connection.execute(statement, columns)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``; if that fails, the old one stays.

        Raises
        ------
        JournalError
            If it cannot be written.
        """
        try:
            with journal_errors(self.folder):
                write_json(self.folder / SUMMARY_FILE, dict(summary))
        except (TypeError, ValueError) as error:
            raise JournalError(f"{self.folder / SUMMARY_FILE} cannot hold the summary: {error}") from error

    def close(self) -> None:
        """Move what is finished from the log into the database file, and let other processes in."""
        with self._mutex:
            # Where that fails (a full disk, a reader at work) nothing is lost: the next run reads the log. So there
            # is no need to wait for readers either.
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA busy_timeout = 0")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _digest(self, scorer: str) -> str:
        if scorer not in self._digests:
            raise JournalError(
                f"the journal of {self.folder} was opened for {', '.join(self._digests) or 'no scorer'}, not for "
                f"{scorer!r}; pass its fingerprint to Journal.open"
            )
        return self._digests[scorer]


def _check_results(logits: Logits, n_rows: int, errors: Mapping[int, str]) -> tuple[Logits, dict[int, str]]:
    """Return logits and reasons as they are kept: NaN for every row that failed, and a reason for every NaN."""
    if logits.dtype != np.float32 or logits.ndim != 2 or len(logits) != n_rows:
        raise JournalError(f"got {logits.dtype} logits of shape {logits.shape}, expected float32 ({n_rows}, n_classes)")
    unknown = [position for position in errors if not 0 <= position < n_rows]
    if unknown:
        raise JournalError(f"got an error for row {unknown[0]} of a chunk of {n_rows} rows")
    return mark_failed(logits, errors)


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ContractError(
                f"scorer {name!r}: its name holds half of a character (a lone surrogate), and a journal keeps Unicode "
                "only. Pass another name="
            ) from error


def _current(connection: sqlite3.Connection, folder: Path) -> dict[str, str]:
    """Return the current fingerprint of each scorer of the run, as JSON text."""
    query = "SELECT scorer, digest, settings FROM fingerprints WHERE is_current ORDER BY scorer"
    found = {}
    for scorer, digest, settings in connection.execute(query):
        if not (isinstance(scorer, str) and isinstance(settings, str) and digest_of(settings) == digest):
            raise JournalError(damaged(folder / JOURNAL_FILE, f"the settings of scorer {scorer!r} have changed"))
        found[scorer] = settings
    return found


def _take_fingerprints(
    connection: sqlite3.Connection, folder: Path, settings: Mapping[str, str], rescore: bool
) -> None:
    known = _current(connection, folder)
    changed = [name for name, text in settings.items() if known.get(name, text) != text]
    if changed and not rescore:
        faults = [fault for name in changed for fault in differences(name, known[name], settings[name])]
        raise RunFolderError(
            f"{folder} holds results of other settings: {'; '.join(faults)}. Go on with the old settings, give another "
            f"run directory, or pass {spell('rescore=True')} to score anew with these"
        )
    with transaction(connection):
        for name, text in settings.items():
            connection.execute("UPDATE fingerprints SET is_current = 0 WHERE scorer = ?", (name,))
            connection.execute(
                "INSERT INTO fingerprints VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET is_current = 1",
                (name, digest_of(text), text),
            )
