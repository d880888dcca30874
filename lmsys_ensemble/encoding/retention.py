"""The account of what truncation kept and cut."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmsys_ensemble.schema import ID_COLUMN, TEXT_COLUMNS

LITERAL = 0
FIELD_CODES = {name: code for code, name in enumerate(TEXT_COLUMNS, 1)}
"""What `Encoded.fields` holds: 0 for the template's words and control tokens, then prompt, response A, response B."""

CHARACTERS_PER_TOKEN = 4
"""Estimate for a text of which nothing was read, in the account of what was cut."""


def estimate_tokens(n_tokens: int, n_read: int, n_all: int) -> float:
    """Return the tokens that a text of `n_all` characters has whose first `n_read` have `n_tokens`."""
    if n_read:
        return n_tokens * n_all / n_read
    return n_all / CHARACTERS_PER_TOKEN


def retention_table(
    ids: "pd.Index[Any]", codes: Sequence[NDArray[np.int8]], totals: Sequence[NDArray[np.float64]]
) -> pd.DataFrame:
    """Tabulate what every row kept and lost.

    Parameters
    ----------
    ids : pandas.Index
        Ids of the rows.
    codes : sequence of ndarray
        Where every kept token of a row came from, see `FIELD_CODES`.
    totals : sequence of ndarray of shape (4,)
        Tokens that each field of a row has in all, by code.

    Returns
    -------
    DataFrame
        One row per battle: ``id``, ``n_tokens``, ``truncated``; tokens kept and cut by field (``prompt_kept``,
        ``prompt_cut`` and so on), where counts of what was cut are estimates if the text was too long to be read to
        its end; and ``note``, which names empty and entirely cut fields.
    """
    n_codes = len(FIELD_CODES) + 1
    kept = np.array([np.bincount(row, minlength=n_codes) for row in codes], dtype=np.intp).reshape(-1, n_codes)
    had = np.ceil(np.array(totals).reshape(-1, n_codes)).astype(np.intp)
    cut = np.maximum(had - kept, 0)
    cut[:, LITERAL] = 0
    frame = {
        ID_COLUMN: ids,
        "n_tokens": kept.sum(axis=1),
        "truncated": cut.any(axis=1),
    }
    notes: list[list[str]] = [[] for _ in codes]
    for name, code in FIELD_CODES.items():
        frame[f"{name}_kept"], frame[f"{name}_cut"] = kept[:, code], cut[:, code]
        for row in np.flatnonzero(kept[:, code] == 0):
            notes[row].append(f"{name} cut entirely" if cut[row, code] else f"{name} empty")
    frame["note"] = np.array([", ".join(note) for note in notes], dtype=object)
    return pd.DataFrame(frame)
