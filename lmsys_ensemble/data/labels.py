"""Labels: one column per class, or the winner's name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmsys_ensemble.data.frames import TableLike, as_frame
from lmsys_ensemble.data.tables import MAX_LISTED_FAULTS
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import Probabilities, check_probabilities
from lmsys_ensemble.schema import THREE_WAY, WINNER_COLUMN, Task


def parse_labels(table: TableLike, task: Task = THREE_WAY) -> Probabilities:
    """Read labels: one column per class (one-hot or soft), or a ``winner`` column with class names.

    Parameters
    ----------
    table : DataFrame
        With the columns of ``task.columns``, or ``winner`` (``model_a``, ``model_b``, ``tie``); other kinds of
        tables as for `lmsys_ensemble.parse_battles`.
    task : Task
        Gives the classes and their order.

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
        Rows sum to 1.

    Raises
    ------
    InputError
        If there are no labels, or a row's labels are no probabilities; names the first such row.
    """
    table = as_frame(table)
    if set(task.columns) <= set(table.columns):
        try:
            return check_probabilities(table[list(task.columns)].to_numpy(), name=f"labels {', '.join(task.columns)}")
        except InputError as error:
            raise InputError(f"{error} (rows are counted from 0)") from error
    if WINNER_COLUMN not in table:
        raise InputError(
            f"no labels found: expected the columns {', '.join(task.columns)}, or {WINNER_COLUMN!r} "
            f"with the values {', '.join(task.classes)}"
        )
    codes = {name: code for code, name in enumerate(task.classes)}
    if "tie" in codes:
        codes["tie (bothbad)"] = codes["tie"]
    winners = table[WINNER_COLUMN].tolist()
    unknown = [
        f"row {i}: {value!r}" for i, value in enumerate(winners) if not isinstance(value, str) or value not in codes
    ]
    if unknown:
        raise InputError(
            f"{WINNER_COLUMN} must be one of {', '.join(task.classes)}; {len(unknown)} are not: "
            + ", ".join(unknown[:MAX_LISTED_FAULTS])
            + _renaming(winners, codes)
        )
    one_hot: Probabilities = np.eye(task.n_classes)[[codes[value] for value in winners]]
    return one_hot


_OTHER_WINNERS = {"a": "model_a", "b": "model_b", "model a": "model_a", "model b": "model_b", "response_a": "model_a",
                  "response_b": "model_b", "draw": "tie", "equal": "tie", "tied": "tie"}  # fmt: skip


def _renaming(winners: Sequence[Any], codes: Mapping[str, int]) -> str:
    """Return how to rename labels, where all that are unknown have a name that others use."""
    unknown = sorted({value for value in winners if isinstance(value, str) and value not in codes})
    meant = {value: _OTHER_WINNERS.get(value.strip().lower(), "") for value in unknown}
    if not unknown or not set(meant.values()) <= codes.keys() or any(not isinstance(v, str) for v in winners):
        return ""
    return f". To rename them: table[{WINNER_COLUMN!r}] = table[{WINNER_COLUMN!r}].replace({meant})"
