"""Out-of-fold predictions: one file per fold, one of all folds, and the figures that are measured on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmsys_ensemble.data.tables import encode_table, read_table
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.folds import group_codes
from lmsys_ensemble.files import write_atomically
from lmsys_ensemble.probabilities import Logits, softmax
from lmsys_ensemble.schema import GROUP_COLUMN, ID_COLUMN, Task
from lmsys_ensemble.training.rows import Folds
from lmsys_ensemble.training.validation import ALL, baselines, measure

OOF_FILE, LABELS_FILE = "oof.parquet", "labels.parquet"
FOLD_COLUMN, SOURCE_COLUMN = "fold", "source"


def write_fold(path: Path, folds: Folds, fold: int, logits: Logits, task: Task) -> None:
    """Write what the model of a fold predicts for the rows held out of it; see `fold_table`."""
    write_atomically(path, encode_table(fold_table(folds, fold, logits, task), path))


def fold_table(folds: Folds, fold: int, logits: Logits, task: Task) -> pd.DataFrame:
    """Return what the model of a fold predicts for the rows held out of it.

    Columns are those of a file of predictions (``id``, one of probabilities per class), ``fold``, ``source``,
    ``group``, and per class ``logit_...`` and ``label_...``. Groups are numbered over all rows.
    """
    rows = folds.rows(fold)
    held = folds.data.take(rows)
    table = pd.DataFrame({ID_COLUMN: held.battles.ids, FOLD_COLUMN: fold, SOURCE_COLUMN: held.sources.astype(str)})
    table[GROUP_COLUMN] = group_codes(folds.data.groups, len(folds.data))[rows]
    table[list(task.columns)] = softmax(logits)
    table[_named("logit", task)] = logits
    table[_named("label", task)] = held.labels
    return table


def read_folds(paths: Sequence[Path], folds: Folds) -> pd.DataFrame:
    """Return the tables of all folds as one, in the order of the rows.

    Raises
    ------
    ConfigError
        If they do not hold every row once.
    """
    tables = [read_table(path) for path in paths]
    try:
        return in_order(tables, folds)
    except InputError as error:
        raise ConfigError(
            f"{paths[0].parent.parent}: the files {OOF_FILE} of its folds {error}. Remove the fold whose file was "
            "changed, and train it anew"
        ) from error


def in_order(tables: Sequence[pd.DataFrame], folds: Folds) -> pd.DataFrame:
    """Return the tables of all folds as one, in the order of the rows.

    Raises
    ------
    InputError
        If they do not hold every row once.
    """
    table = pd.concat(tables, ignore_index=True)
    ids = folds.data.battles.ids
    found = pd.Index(table[ID_COLUMN])
    if not found.is_unique or set(found) != set(ids):
        raise InputError(f"do not hold each of the {len(ids)} rows once")
    ordered: pd.DataFrame = table.iloc[found.get_indexer(ids)].reset_index(drop=True)
    return ordered


def write_all(folder: Path, table: pd.DataFrame, task: Task) -> None:
    """Write the out-of-fold predictions of all rows, and their labels as a file of labels."""
    write_atomically(folder / OOF_FILE, encode_table(table, folder / OOF_FILE))
    labels = table[[ID_COLUMN, *_named("label", task), SOURCE_COLUMN, GROUP_COLUMN, FOLD_COLUMN]]
    labels = labels.rename(columns=dict(zip(_named("label", task), task.columns, strict=True)))
    write_atomically(folder / LABELS_FILE, encode_table(labels, folder / LABELS_FILE))


def measure_folds(table: pd.DataFrame, folds: Folds, task: Task) -> dict[str, Any]:
    """Measure out-of-fold predictions, beside baselines that are fitted out of fold, too.

    Parameters
    ----------
    table : DataFrame
        As `read_folds` returns it.
    folds : Folds
        The rows.
    task : Task
        The classes.

    Returns
    -------
    dict
        ``rows``, ``groups``; ``folds``, a list with ``fold``, ``rows``, ``groups`` and ``figures``; ``overall``.
        Figures are by source, see `lmsys_ensemble.training.validation.measure`.
    """
    data = folds.data
    probabilities = table[list(task.columns)].to_numpy()
    prior, lengths = np.zeros_like(probabilities), np.zeros_like(probabilities)
    by_fold = []
    for fold in range(1, folds.n_splits + 1):
        rows = folds.rows(fold)
        learn, held = folds.divide(fold)
        prior[rows], lengths[rows] = baselines(learn, held)
        figures = measure(held, probabilities[rows], prior[rows], lengths[rows])
        by_fold.append({"fold": fold, "rows": len(rows), "groups": _n_groups(held.groups), "figures": figures})
    return {
        "rows": len(data),
        "groups": _n_groups(data.groups),
        "folds": by_fold,
        "overall": measure(data, probabilities, prior, lengths),
    }


def figures_table(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Return the figures of every fold, and of all rows by source, as a table that people read."""
    lines = [(f"fold {entry['fold']}", entry["figures"][ALL]) for entry in measured["folds"]]
    overall = measured["overall"]
    named = [source for source in overall if source != ALL]
    lines += [(f"all folds, {source}", overall[source]) for source in named if len(named) > 1]
    lines.append(("all folds", overall[ALL]))
    return pd.DataFrame([{"": name, **_cells(figures)} for name, figures in lines])


def _cells(figures: Mapping[str, Any]) -> dict[str, str]:
    return {
        "rows": f"{figures['rows']:,}",
        "log loss": f"{figures['log_loss']:.4f}",
        "95 % of it": _interval(figures["log_loss_interval"], ".4f"),
        "accuracy": f"{figures['accuracy']:.3f}",
        "95 % of that": _interval(figures["accuracy_interval"], ".3f"),
        "class prior": f"{figures['class_prior']:.4f}",
        "length only": f"{figures['length_only']:.4f}",
        "model − length only": f"{figures['difference_to_length_only']:+.4f} "
        f"({_interval(figures['difference_interval'], '+.4f')})",
    }


def _interval(ends: Sequence[float], digits: str) -> str:
    return f"{ends[0]:{digits}} to {ends[1]:{digits}}"


def _named(what: str, task: Task) -> list[str]:
    return [f"{what}_{name}" for name in task.classes]


def _n_groups(groups: Any) -> int:
    return len(set(groups.astype(str)))
