"""Finished rows of one scorer, as a journal holds them: a record a chunk, put together for a million rows."""

import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.records import HASH_BYTES, Record, read_records
from lmsys_ensemble.probabilities import Logits

logger = logging.getLogger(__name__)

Keys: TypeAlias = NDArray[np.bytes_]
"""Hashes as 16 bytes each. NumPy drops trailing zero bytes when it hands one out, and never when it compares."""


def pack_rows(rows: Sequence[str]) -> bytes:
    """Return row hashes as bytes, 16 each.

    Raises
    ------
    JournalError
        If one is no content hash.
    """
    try:
        packed = bytes.fromhex("".join(rows))
        if len(packed) != HASH_BYTES * len(rows) or any(len(row) != 2 * HASH_BYTES for row in rows):
            raise ValueError("of another length")
    except ValueError as error:
        raise JournalError(
            f"rows are known by {2 * HASH_BYTES} hexadecimal digits, as Battles.content_hashes() gives them: {error}"
        ) from error
    return packed


def unpack_rows(packed: bytes) -> list[str]:
    """Return what `pack_rows` was given."""
    digits = packed.hex()
    return [digits[start : start + 2 * HASH_BYTES] for start in range(0, len(digits), 2 * HASH_BYTES)]


@dataclass(frozen=True, eq=False)
class Finished:
    """Rows that a scorer has finished.

    Attributes
    ----------
    keys : ndarray of shape (n,)
        Hashes of the rows as bytes, sorted; a row's place here is its position.
    logits : float32 ndarray of shape (n, n_classes)
        By position, as they were committed, bit for bit; NaN for rows that failed. Shape (0, 0) while there are none.
    errors : dict of str to str
        Row hash and reason of rows that failed.
    """

    keys: Keys
    logits: Logits
    errors: dict[str, str]

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, row: str) -> bool:
        return bool(self.positions([row])[0] >= 0)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of every row hash; for many rows at once `positions` needs far less memory."""
        return {row: position for position, row in enumerate(unpack_rows(self.keys.tobytes()))}

    def positions(self, rows: Sequence[str]) -> NDArray[np.intp]:
        """Return the position of every row, -1 for those that are not finished."""
        wanted = np.frombuffer(pack_rows(rows), dtype=f"S{HASH_BYTES}")
        if not len(self.keys):
            return np.full(len(rows), -1, dtype=np.intp)
        places = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
        return np.where(self.keys[places] == wanted, places, -1)


def read_finished(connection: sqlite3.Connection, scorer: str, fingerprint: str, version: int) -> Finished:
    """Read all that a scorer has finished under a fingerprint, from a journal of some version.

    Where a row was committed more than once, the last commit counts. A record that no longer is what was committed
    is left out, so that its rows are scored again.

    Raises
    ------
    JournalError
        If some of it has another number of classes than the rest.
    """
    records = []
    for _, record, whose in read_records(connection, version):
        if record is None and whose == scorer:
            logger.warning("scorer %r: a chunk in the journal is damaged; its rows are taken for not scored", scorer)
        if record is not None and (record.scorer, record.fingerprint) == (scorer, fingerprint) and record.n_rows:
            records.append(record)
    return put_together(records)


def put_together(records: Sequence[Record]) -> Finished:
    """Return the rows of one scorer's records, in the order of commits: of rows that occur twice, the last.

    Raises
    ------
    JournalError
        If the records differ in the number of classes.
    """
    if not records:
        return Finished(np.empty(0, dtype=f"S{HASH_BYTES}"), np.empty((0, 0), dtype=np.float32), {})
    widths = sorted({record.n_classes for record in records})
    if len(widths) > 1:
        raise JournalError(
            f"the journal holds logits of {' and of '.join(map(str, widths))} classes of scorer {records[0].scorer!r} "
            "under the same settings. Let its fingerprint() say how many classes it has, and give another run directory"
        )
    reasons: dict[int, str] = {}
    n_rows = 0
    for record in records:
        reasons.update((n_rows + int(position), why) for position, why in json.loads(record.errors).items())
        n_rows += record.n_rows
    logits = np.frombuffer(b"".join(record.logits for record in records), dtype="<f4").reshape(-1, widths[0])
    packed = b"".join(record.row_hashes for record in records)
    return _without_repeats(packed, logits.astype(np.float32, copy=False), reasons)


def _without_repeats(packed: bytes, logits: Logits, reasons: Mapping[int, str]) -> Finished:
    every = np.frombuffer(packed, dtype=f"S{HASH_BYTES}")
    keys, first_from_end = np.unique(every[::-1], return_index=True)
    last = len(every) - 1 - first_from_end
    errors = {}
    for place, reason in reasons.items():
        if last[np.searchsorted(keys, every[place])] == place:
            errors[packed[HASH_BYTES * place : HASH_BYTES * (place + 1)].hex()] = reason
    return Finished(keys, logits[last], errors)
