"""Finished rows of one scorer, as a journal holds them: a record a chunk, put together for a million rows."""

import hashlib
import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.probabilities import Logits

logger = logging.getLogger(__name__)

HASH_BYTES = 16
"""Bytes of a row's content hash; in text twice as many hexadecimal digits."""

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


def checksum_of(*parts: bytes) -> bytes:
    """Return a digest of 16 bytes that tells whether anything in a record has changed."""
    return hashlib.blake2b(b"".join(parts), digest_size=HASH_BYTES).digest()


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


def encode_record(rows: bytes, logits: Logits, errors: Mapping[int, str]) -> dict[str, Any]:
    """Return the columns of a chunk's record that hold its results."""
    reasons = json.dumps({str(position): reason for position, reason in sorted(errors.items())})
    values = logits.astype("<f4").tobytes()
    return {
        "chunk": checksum_of(rows),
        "row_hashes": rows,
        "n_classes": logits.shape[1],
        "logits": values,
        "errors": reasons,
        "checksum": checksum_of(rows, values, reasons.encode()),
    }


def read_finished(connection: sqlite3.Connection, scorer: str, fingerprint: str) -> Finished:
    """Read all that a scorer has finished under a fingerprint.

    Where a row was committed more than once, the last commit counts. A record that no longer is what was committed
    is left out, so that its rows are scored again.
    """
    columns = "row_hashes, n_classes, logits, errors, checksum"
    query = f"SELECT {columns} FROM results WHERE scorer = ? AND fingerprint = ? ORDER BY position"  # noqa: S608
    packed: list[bytes] = []
    parts: list[Logits] = []
    reasons: dict[int, str] = {}
    n_rows = 0
    for rows, n_classes, values, errors, checksum in connection.execute(query, (scorer, fingerprint)):
        if checksum_of(rows, values, errors.encode()) != checksum:
            logger.warning("scorer %r: a chunk in the journal is damaged; its rows are taken for not scored", scorer)
            continue
        packed.append(rows)
        parts.append(np.frombuffer(values, dtype="<f4").reshape(-1, n_classes))
        reasons.update((n_rows + int(position), reason) for position, reason in json.loads(errors).items())
        n_rows += len(parts[-1])
    if not n_rows:
        return Finished(np.empty(0, dtype=f"S{HASH_BYTES}"), np.empty((0, 0), dtype=np.float32), {})
    return _put_together(b"".join(packed), np.concatenate(parts).astype(np.float32, copy=False), reasons)


def _put_together(packed: bytes, logits: Logits, reasons: Mapping[int, str]) -> Finished:
    every = np.frombuffer(packed, dtype=f"S{HASH_BYTES}")
    keys, first_from_end = np.unique(every[::-1], return_index=True)
    last = len(every) - 1 - first_from_end
    errors = {}
    for place, reason in reasons.items():
        if last[np.searchsorted(keys, every[place])] == place:
            errors[packed[HASH_BYTES * place : HASH_BYTES * (place + 1)].hex()] = reason
    return Finished(keys, logits[last], errors)
