"""Parts of the rows to measure apart: by length, number of turns, source, language and script."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.report.inputs import ReportInput

N_LENGTH_BINS = 5
MAX_TURNS = 4
"""Battles of more turns are one part with those of so many."""

MAX_NAMES = 12
"""Sources, languages or scripts shown apart; the others, which have fewer rows, are one part."""

MIN_ROWS = 10
"""Rows that a language or a script must have to be shown apart: of those that are told, some are wrong."""


@dataclass(frozen=True, eq=False)
class Slicing:
    """A division of the rows.

    Attributes
    ----------
    title : str
        By what, in words.
    names : list of str
        Of the parts.
    codes : ndarray of shape (n_rows,)
        Part of every row.
    """

    title: str
    names: list[str]
    codes: NDArray[np.intp]


def slice_battles(inputs: ReportInput) -> Iterator[Slicing]:
    """Divide rows by what is known of their battles; nothing without battles."""
    if inputs.battles is None:
        return
    yield slice_lengths(inputs.battles)
    yield slice_turns(inputs.battles)
    if inputs.sources is not None:
        yield slice_names("Source", inputs.sources)
    for name, values in inputs.told.items():
        part = slice_names(name.capitalize(), values, MIN_ROWS)
        if len(part.names) > 1:
            yield part


def slice_lengths(battles: Battles) -> Slicing:
    """Divide by the characters of prompt and responses together, into parts of about as many rows."""
    lengths = np.array([_n_characters(battle.prompt, battle.response_a, battle.response_b) for battle in battles])
    quantiles = np.quantile(lengths, np.arange(1, N_LENGTH_BINS) / N_LENGTH_BINS)
    edges = np.unique([_round_up(edge) for edge in quantiles])
    edges = edges[edges < lengths.max()]
    names = []
    for position in range(len(edges) + 1):
        low = 0 if position == 0 else int(edges[position - 1]) + 1
        names.append(f"{low:,} or more" if position == len(edges) else f"{low:,} to {int(edges[position]):,}")
    return _occupied("Length in characters", names, np.searchsorted(edges, lengths))


def slice_turns(battles: Battles) -> Slicing:
    """Divide by the number of turns."""
    turns = np.array([len(prompt) for prompt in battles.prompts])
    names = [f"{count} turn{'s' if count > 1 else ''}" for count in range(1, MAX_TURNS)] + [f"{MAX_TURNS} or more"]
    return _occupied("Number of turns", names, np.minimum(turns, MAX_TURNS) - 1)


def slice_names(title: str, values: "pd.Series[Any]", min_rows: int = 1) -> Slicing:
    """Divide by names, those with the most rows first; names of fewer than `min_rows` are one part."""
    named = values.fillna("").astype(str).replace("", "missing")
    counts = named.value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
    names = [str(name) for name in counts.index[counts >= min_rows][:MAX_NAMES]]
    codes = {name: position for position, name in enumerate(names)}
    numbers = np.array([codes.get(name, len(names)) for name in named], dtype=np.intp)
    others = len(counts) - len(names)
    return _occupied(title, [*names, f"{others} others"] if others else names, numbers)


def _occupied(title: str, names: list[str], codes: NDArray[np.intp]) -> Slicing:
    """Leave out the parts that have no rows."""
    kept, compact = np.unique(codes, return_inverse=True)
    return Slicing(title, [names[position] for position in kept], compact.astype(np.intp))


def _n_characters(*texts: tuple[str, ...]) -> int:
    return sum(len(turn) for turns in texts for turn in turns)


def _round_up(value: float) -> int:
    """Round up to two significant digits."""
    unit = 10 ** max(0, len(str(int(value))) - 2)
    return int(np.ceil(value / unit) * unit)
