"""What a report is made of: checked once, brought into one order."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lmsys_ensemble.blending.checks import check_members
from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.languages import COMPUTED, can_tell, column_of
from lmsys_ensemble.data.predictions import locate
from lmsys_ensemble.data.tables import parse_ids
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.evaluation.folds import group_codes
from lmsys_ensemble.probabilities import Probabilities, check_labels, check_probabilities, swap_classes
from lmsys_ensemble.schema import ID_COLUMN, Task

SOURCE_COLUMN = "source"


@dataclass(frozen=True, eq=False)
class ReportInput:
    """Checked input of a report, all in the order of the labels.

    Attributes
    ----------
    task : Task
        Classes and their order.
    members, swapped : dict of str to ndarray of shape (n_rows, n_classes)
        Probabilities by member: of the battles as they are, and with their responses swapped (may be empty).
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft.
    ids : pandas.Index
        Ids of the rows.
    codes : ndarray of shape (n_rows,)
        Numbers of the rows' groups.
    battles : Battles or None
        Texts.
    sources : Series or None
        Where every battle comes from.
    told : dict of str to Series
        ``script`` and ``language`` of every battle: from the table's own columns, else told from the texts, the latter
        where the package for it is installed.
    """

    task: Task
    members: dict[str, Probabilities]
    labels: Probabilities
    ids: "pd.Index[Any]"
    codes: NDArray[np.intp]
    battles: Battles | None
    sources: "pd.Series[Any] | None"
    swapped: dict[str, Probabilities]
    told: "dict[str, pd.Series[Any]]"

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def n_groups(self) -> int:
        """Number of groups of rows."""
        return int(self.codes.max()) + 1


def check_inputs(
    members: Mapping[str, ArrayLike],
    labels: ArrayLike,
    *,
    task: Task,
    ids: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    battles: pd.DataFrame | None = None,
    swapped: Mapping[str, ArrayLike] | None = None,
) -> ReportInput:
    """Check everything that goes into a report; see `lmsys_ensemble.write_report`.

    Raises
    ------
    InputError
        If something is wrong or does not match; names it.
    """
    arrays = check_members(list(members.values()))
    n_rows = len(arrays[0])
    if arrays[0].shape[1] != task.n_classes:
        raise InputError(f"probabilities have {arrays[0].shape[1]} classes, the task {task.name!r} {task.n_classes}")
    truth = check_labels(labels, n_classes=task.n_classes, n_rows=n_rows)
    codes = group_codes(groups, n_rows)
    if not n_rows or codes.max() == 0:
        raise InputError(f"a report needs rows of at least two groups, got {n_rows} rows of {min(n_rows, 1)} group")
    texts, table, known = _align_battles(battles, ids, n_rows)
    return ReportInput(
        task, dict(zip(members, arrays, strict=True)), truth, known, codes, texts, table.get(SOURCE_COLUMN),
        _check_swapped(swapped, members, n_rows, task.n_classes), _tell(texts, table),
    )  # fmt: skip


def _check_swapped(
    swapped: Mapping[str, ArrayLike] | None, members: Mapping[str, ArrayLike], n_rows: int, n_classes: int
) -> dict[str, Probabilities]:
    if swapped is None:
        return {}
    if set(swapped) != set(members):
        raise InputError(f"swapped is of {', '.join(swapped)}, members are {', '.join(members)}; give all of them")
    return {
        name: check_probabilities(swapped[name], n_rows=n_rows, n_classes=n_classes, name=f"swapped {name}")
        for name in members
    }


def _align_battles(
    table: pd.DataFrame | None, ids: ArrayLike | None, n_rows: int
) -> "tuple[Battles | None, pd.DataFrame, pd.Index[Any]]":
    """Bring battles and their table into the order of the ids; without ids they must be in that of the rows."""
    known: pd.Index[Any] = pd.RangeIndex(n_rows) if ids is None else parse_ids(pd.Series(ids))
    if len(known) != n_rows:
        raise InputError(f"got {len(known)} ids for {n_rows} rows; give one per row")
    if table is None:
        return None, pd.DataFrame(), known
    if ID_COLUMN not in table:
        raise InputError(f"the battles have no column {ID_COLUMN!r}; they have {', '.join(map(str, table))}")
    if ids is not None:
        positions = locate(known, parse_ids(table[ID_COLUMN]), "the battles have no texts", "the labels")
        table = table.iloc[positions]
    elif len(table) != n_rows:
        raise InputError(f"got {len(table)} battles for {n_rows} rows; pass ids, and they are matched by id")
    table = table.reset_index(drop=True)
    battles = parse_battles(table)
    return battles, table, battles.ids


def _tell(battles: Battles | None, table: pd.DataFrame) -> "dict[str, pd.Series[Any]]":
    """Return script and language of battles, as far as they can be told."""
    told: dict[str, pd.Series[Any]] = {}
    for name in COMPUTED if battles is not None else ():
        if name in table:
            told[name] = table[name]
        elif battles is not None and can_tell(name):
            told[name] = pd.Series(column_of(battles, name))
    return told


def find_swapped(inputs: ReportInput) -> list[str]:
    """Name pairs of members whose swapped predictions seem to be each other's, one sentence per pair."""
    names = list(inputs.swapped)
    mirrored = [swap_classes(inputs.swapped[name], inputs.task) for name in names]
    distances = np.array([
        [np.abs(inputs.members[name] - other).mean() for other in mirrored] for name in names
    ])  # fmt: skip
    return [
        f"the swapped predictions of {names[one]} and {names[other]} look mixed up: each lie nearer to the other's "
        "predictions; give --swapped as NAME=FILE, or in the order of --probabilities"
        for one, other in combinations(range(len(names)), 2)
        if distances[one, other] + distances[other, one] < 0.5 * (distances[one, one] + distances[other, other])
    ]
