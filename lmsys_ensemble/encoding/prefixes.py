"""Beginnings that rows have in common, so that they are computed once.

(A, B) and (B, A) of a battle begin with the same prompt; so do the battles of several models over one prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHORTEST_PREFIX = 32
"""Tokens from which on a common beginning is kept apart: below, the bookkeeping costs more than it saves."""


@dataclass(frozen=True)
class Family:
    """Rows that share their first tokens.

    Parameters
    ----------
    rows : tuple of int
        Positions of the rows.
    n_shared : int
        Tokens that all of them begin with; 0 for a row on its own. Every row has at least one token more.
    """

    rows: tuple[int, ...]
    n_shared: int

    def cost(self, lengths: NDArray[np.intp]) -> int:
        """Return the tokens that must be computed for all rows."""
        return int(lengths[list(self.rows)].sum()) - (len(self.rows) - 1) * self.n_shared


def find_families(
    ids: Sequence[NDArray[np.int32]], fields: Sequence[NDArray[np.int8]], max_tokens: int
) -> list[Family]:
    """Group rows by common beginnings.

    Parameters
    ----------
    ids, fields : sequence of ndarray
        Token ids of every row and where they came from; tokens are common where both are the same.
    max_tokens : int
        Most tokens that a family may cost, if it has more than one row.

    Returns
    -------
    list of Family
        Every row is in exactly one. In the order of the texts a row joins the family before it where that saves
        tokens.
    """
    keys = [row.astype(">u4").tobytes() for row in ids]
    order = sorted(range(len(ids)), key=keys.__getitem__)
    families: list[Family] = []
    members: list[int] = []
    shared = cost = 0
    for row in order:
        length = len(ids[row])
        if members:
            common = _common(ids, fields, members[0], row, min(shared, length - 1))
            saved = len(members) * common
            joined = cost + (len(members) - 1) * shared + length - saved
            if common >= SHORTEST_PREFIX and saved > (len(members) - 1) * shared and joined <= max_tokens:
                members.append(row)
                shared, cost = common, joined
                continue
            families.append(_family(members, shared))
        members, shared, cost = [row], length - 1, length
    if members:
        families.append(_family(members, shared))
    return families


def keep_rows(families: Sequence[Family], rows: Sequence[int]) -> list[Family]:
    """Return the families of some rows only, numbered by the rows' places among them.

    A family keeps the beginning that all of it had in common, although those that remain may share more.

    Parameters
    ----------
    families : sequence of Family
        Of more rows than these.
    rows : sequence of int
        Rows to keep, in their new order.
    """
    places = {row: place for place, row in enumerate(rows)}
    kept = ([places[row] for row in family.rows if row in places] for family in families)
    return [_family(members, family.n_shared) for members, family in zip(kept, families, strict=True) if members]


def _family(members: list[int], shared: int) -> Family:
    return Family(tuple(members), shared if len(members) > 1 else 0)


def _common(
    ids: Sequence[NDArray[np.int32]], fields: Sequence[NDArray[np.int8]], one: int, other: int, limit: int
) -> int:
    """Return how many of the first `limit` tokens two rows share."""
    differ = (ids[one][:limit] != ids[other][:limit]) | (fields[one][:limit] != fields[other][:limit])
    where = np.flatnonzero(differ)
    return int(where[0]) if len(where) else limit


def unique_rows(
    ids: Sequence[NDArray[np.int32]], fields: Sequence[NDArray[np.int8]]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find rows that are the same.

    Returns
    -------
    first : ndarray of shape (n_unique,)
        Position of the first of each kind.
    kinds : ndarray of shape (n_rows,)
        For every row, which of them it is.
    """
    seen: dict[tuple[bytes, bytes], int] = {}
    first: list[int] = []
    kinds = np.empty(len(ids), dtype=np.intp)
    for row, (tokens, codes) in enumerate(zip(ids, fields, strict=True)):
        key = (tokens.tobytes(), codes.tobytes())
        if key not in seen:
            seen[key] = len(first)
            first.append(row)
        kinds[row] = seen[key]
    return np.array(first, dtype=np.intp), kinds
