"""Finished rows of one scorer, put together from the records of a journal; fit for a million rows."""

import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.records import KEY_BYTES, Record, read_records
from lmsys_ensemble.probabilities import Logits

logger = logging.getLogger(__name__)

Keys: TypeAlias = NDArray[np.bytes_]
"""Keys as 16 bytes each. NumPy drops trailing zero bytes when it hands one out, and never when it compares."""


def pack_keys(keys: Sequence[str]) -> bytes:
    """Return keys as bytes, 16 each.

    Raises
    ------
    JournalError
        If one is no content hash.
    """
    try:
        packed = bytes.fromhex("".join(keys))
        if len(packed) != KEY_BYTES * len(keys) or any(len(key) != 2 * KEY_BYTES for key in keys):
            raise ValueError("of another length")
    except ValueError as error:
        raise JournalError(
            f"rows are known by {2 * KEY_BYTES} hexadecimal digits, as Battles.content_hashes() gives them: {error}"
        ) from error
    return packed


def unpack_keys(packed: bytes) -> list[str]:
    """Return what `pack_keys` was given."""
    digits = packed.hex()
    return [digits[start : start + 2 * KEY_BYTES] for start in range(0, len(digits), 2 * KEY_BYTES)]


@dataclass(frozen=True, eq=False)
class Finished:
    """Rows that a scorer has finished.

    Attributes
    ----------
    keys : ndarray of shape (n,)
        Keys of the rows as bytes, sorted; the place of a key here is the row's position.
    logits : float32 ndarray of shape (n, n_classes)
        By position, as they were committed, bit for bit; NaN for rows that failed. Shape (0, 0) while there are none.
    errors : dict of str to str
        By key, why a row failed.
    """

    keys: Keys
    logits: Logits
    errors: dict[str, str]

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: str) -> bool:
        return bool(self.positions([key])[0] >= 0)

    def positions(self, keys: Sequence[str]) -> NDArray[np.intp]:
        """Return the position of the row with each key, -1 where it is not finished."""
        wanted = np.frombuffer(pack_keys(keys), dtype=f"S{KEY_BYTES}")
        if not len(self.keys):
            return np.full(len(keys), -1, dtype=np.intp)
        places = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
        return np.where(self.keys[places] == wanted, places, -1)


def read_finished(connection: sqlite3.Connection, scorer: str, fingerprint: str, version: int) -> Finished:
    """Read all that a scorer has finished under a fingerprint.

    Where a row was committed more than once, the last commit counts. A record that has changed since it was committed
    is left out, so that its rows are scored again. `version` is that of the journal.

    Raises
    ------
    JournalError
        If some of it has another number of classes than the rest.
    """
    records = []
    for _, record, named in read_records(connection, version):
        if record is None and named == scorer:
            logger.warning("scorer %r: a chunk in the journal is damaged; its rows are taken for not scored", scorer)
        if record is not None and (record.scorer, record.fingerprint) == (scorer, fingerprint) and record.n_rows:
            records.append(record)
    return put_together(records)


def put_together(records: Sequence[Record]) -> Finished:
    """Return the rows of one scorer's records, which come in the order of commits; the last one of a row counts.

    Raises
    ------
    JournalError
        If the records differ in the number of classes.
    """
    if not records:
        return Finished(np.empty(0, dtype=f"S{KEY_BYTES}"), np.empty((0, 0), dtype=np.float32), {})
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
    every = np.frombuffer(packed, dtype=f"S{KEY_BYTES}")
    keys, first_from_end = np.unique(every[::-1], return_index=True)
    last = len(every) - 1 - first_from_end
    errors = {}
    for place, reason in reasons.items():
        if last[np.searchsorted(keys, every[place])] == place:
            errors[packed[KEY_BYTES * place : KEY_BYTES * (place + 1)].hex()] = reason
    return Finished(keys, logits[last], errors)
