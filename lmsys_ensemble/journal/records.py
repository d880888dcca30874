"""Records of finished chunks: what a row of the table holds, and how it is told whether it still is what was written.

A disk that flips a bit must cost a chunk, never falsify one. So a record's checksum covers everything in it, whose it
is included, and records are found by reading them, not by an index, which has no checksum.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

HASH_BYTES = 16
"""Bytes of a row's content hash; in text twice as many hexadecimal digits."""

_BYTES_PER_LOGIT = 4


@dataclass(frozen=True)
class Record:
    """A chunk that a scorer has finished, as the journal holds it.

    Attributes
    ----------
    scorer, fingerprint : str
        Whose, and the digest of its settings.
    chunk : bytes
        Digest of `row_hashes`.
    row_hashes : bytes
        Content hashes of the rows, 16 bytes each.
    n_classes : int
        Columns of the logits.
    logits : bytes
        float32, little-endian, row by row.
    errors : str
        JSON: position and reason of rows that failed.
    device : str
        Where it was scored.
    n_tokens : int
        How many it has.
    seconds, committed_at : float
        How long it took, and when it was done (seconds since 1970).
    """

    scorer: str
    fingerprint: str
    chunk: bytes
    row_hashes: bytes
    n_classes: int
    logits: bytes
    errors: str
    device: str
    n_tokens: int
    seconds: float
    committed_at: float

    @property
    def n_rows(self) -> int:
        """Rows of the chunk."""
        return len(self.row_hashes) // HASH_BYTES

    @property
    def checksum(self) -> bytes:
        """What tells whether anything in the record has changed."""
        blobs = (self.chunk, self.row_hashes, self.logits)
        rest = [value for value in astuple(self) if not isinstance(value, bytes)]
        return checksum_of(*blobs, json.dumps(rest).encode())

    @property
    def first_checksum(self) -> bytes:
        """What journals of version 1 have in its place."""
        return digest_of_bytes(self.row_hashes + self.logits + self.errors.encode())

    @property
    def is_consistent(self) -> bool:
        """Whether its parts fit each other."""
        return (
            self.n_classes > 0
            and len(self.row_hashes) == HASH_BYTES * self.n_rows
            and len(self.logits) == _BYTES_PER_LOGIT * self.n_rows * self.n_classes
            and self.chunk == digest_of_bytes(self.row_hashes)
        )


COLUMNS = tuple(field.name for field in fields(Record))
_KINDS = tuple(field.type for field in fields(Record))


def digest_of_bytes(data: bytes) -> bytes:
    """Return a digest of 16 bytes."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def checksum_of(*parts: bytes) -> bytes:
    """Return a digest of 16 bytes of several parts, and of where one ends and the next begins."""
    return digest_of_bytes(b"".join(part for data in parts for part in (len(data).to_bytes(8, "little"), data)))


def read_records(connection: sqlite3.Connection, version: int) -> Iterator[tuple[int, Record | None, str]]:
    """Yield position, record and scorer of every chunk, in the order of commits.

    Parameters
    ----------
    connection : sqlite3.Connection
        Open database.
    version : int
        The journal's.

    Yields
    ------
    position : int
        Key of the record.
    record : Record or None
        None where it no longer is what was written.
    scorer : str
        Whose it says to be, for what is said of a damaged one.
    """
    # NOT INDEXED: a damaged index hands out other records than were asked for.
    query = f"SELECT position, checksum, {', '.join(COLUMNS)} FROM results NOT INDEXED ORDER BY position"  # noqa: S608
    for position, checksum, *values in connection.execute(query):
        record = _parse(values)
        if record is not None and checksum != (record.first_checksum if version == 1 else record.checksum):
            record = None
        yield position, record, str(values[0])


def _parse(values: Sequence[Any]) -> Record | None:
    parsed = []
    for kind, value in zip(_KINDS, values, strict=True):
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:  # a flipped bit can make it another type's
            return None
        parsed.append(value)
    record = Record(*parsed)
    return record if record.is_consistent else None
