"""Records of finished chunks: what a record holds, and how to tell whether it still is what was written.

A disk that flips a bit must cost a chunk, never falsify one. So the checksum of a record covers everything in it, its
scorer included, and records are found by reading them, not through an index, which has no checksum.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

KEY_BYTES = 16
"""Bytes of a key, the content hash of a row; in text twice as many hexadecimal digits."""

_BYTES_PER_LOGIT = 4


@dataclass(frozen=True)
class Record:
    """A chunk that a scorer has finished, as the journal holds it.

    Attributes
    ----------
    scorer, fingerprint : str
        The scorer's name, and the digest of its settings.
    chunk : bytes
        Digest of `row_hashes`.
    row_hashes : bytes
        Keys of the rows, 16 bytes each; the table's column has this name.
    n_classes : int
        Columns of the logits.
    logits : bytes
        float32, little-endian, row by row.
    errors : str
        JSON: by position in the chunk, why a row failed.
    device : str
        Where it was scored.
    n_tokens : int
        Tokens of the chunk.
    seconds, committed_at : float
        How long the chunk took, and when it was done (seconds since 1970).
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
        return len(self.row_hashes) // KEY_BYTES

    @property
    def checksum(self) -> bytes:
        """A digest of everything in the record: it differs once anything has changed."""
        blobs = (self.chunk, self.row_hashes, self.logits)
        rest = [value for value in astuple(self) if not isinstance(value, bytes)]
        return checksum_of(*blobs, json.dumps(rest).encode())

    @property
    def first_checksum(self) -> bytes:
        """The checksum that journals of version 1 have."""
        return digest_of_bytes(self.row_hashes + self.logits + self.errors.encode())

    @property
    def is_consistent(self) -> bool:
        """Whether its parts fit each other."""
        return (
            self.n_classes > 0
            and len(self.row_hashes) == KEY_BYTES * self.n_rows
            and len(self.logits) == _BYTES_PER_LOGIT * self.n_rows * self.n_classes
            and self.chunk == digest_of_bytes(self.row_hashes)
        )


COLUMNS = tuple(field.name for field in fields(Record))
_KINDS = tuple(field.type for field in fields(Record))


def digest_of_bytes(data: bytes) -> bytes:
    """Return a digest of 16 bytes."""
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


def checksum_of(*parts: bytes) -> bytes:
    """Return a digest of 16 bytes of several parts and their lengths."""
    return digest_of_bytes(b"".join(part for data in parts for part in (len(data).to_bytes(8, "little"), data)))


def read_records(connection: sqlite3.Connection, version: int) -> Iterator[tuple[int, Record | None, str]]:
    """Yield position, record and scorer of every chunk, in the order of commits.

    Parameters
    ----------
    connection : sqlite3.Connection
        Open database.
    version : int
        Version of the journal.

    Yields
    ------
    position : int
        Its place in the table.
    record : Record or None
        None where it is no longer what was written.
    scorer : str
        The scorer that the record names, for messages about damaged ones.
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
        if type(value) is not kind:  # a flipped bit can change its type
            return None
        parsed.append(value)
    record = Record(*parsed)
    return record if record.is_consistent else None
