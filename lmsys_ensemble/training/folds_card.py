"""What lies beside the folds: an ensemble of all of them, and a page that says what they are and what they are for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lmsys_ensemble.files import write_atomically
from lmsys_ensemble.training.card import verdict
from lmsys_ensemble.training.out_of_fold import figures_table
from lmsys_ensemble.training.settings import TrainSettings

CONFIG_FILE, CARD_FILE = "ensemble.yaml", "README.md"


def write_ensemble(folder: Path, settings: TrainSettings, n_splits: int) -> None:
    """Write an ensemble of the folds' scorers, whose probabilities count alike."""
    content = {
        "version": 1,
        "task": settings.task.name,
        "scorers": [f"fold-{fold}" for fold in range(1, n_splits + 1)],
        "blender": {"method": "equal"},
    }
    write_atomically(folder / CONFIG_FILE, yaml.safe_dump(content, sort_keys=False))


def write_card(folder: Path, settings: TrainSettings, figures: Mapping[str, Any]) -> None:
    """Write the page, with all figures of ``folds.json`` but those of sources by fold."""
    write_atomically(folder / CARD_FILE, "\n".join(_lines(settings, figures)))


def _lines(settings: TrainSettings, figures: Mapping[str, Any]) -> list[str]:
    n_splits = figures["n_splits"]
    folders = " ".join(f"fold-{fold}" for fold in range(1, n_splits + 1))
    # A folder given by its path names no path of this machine.
    base = figures["run"]["settings"]["base_model"]
    return [
        f"# {settings.name}: {n_splits} folds",
        "",
        f"{n_splits} LoRA adapters with classification heads for `{base}`, trained by `lmsys-ensemble train --folds "
        f"{n_splits}`, each from the base as it is, on all folds but its own. {figures['rows']:,} rows in "
        f"{figures['groups']:,} groups; rows whose prompts are equal or nearly so are in one fold. Every fold's "
        "folder is a scorer of its own, with its model card.",
        "",
        "## Out-of-fold figures",
        "",
        "Every row is predicted by the model that has not seen its fold. Log loss in nats (lower is better) and "
        "accuracy with 95 % bootstrap intervals over groups. *Class prior* predicts the mean label of the rows of the "
        "same source that the fold's model learned from; *length only* is a logistic regression on the responses' "
        "lengths, fitted to the same rows.",
        "",
        *markdown(figures_table(figures)),
        "",
        *verdict(figures["overall"]),
        "",
        "The average of all folds, which is what new rows get, was not measured: every row was learned from by all "
        "models but one.",
        "",
        "## Use",
        "",
        "In this folder: score new rows with all folds, or make one adapter of them, which costs what one fold costs "
        "(`--input FILE` compares it with the average of all folds, on rows that none of them has seen).",
        "",
        "```sh",
        "lmsys-ensemble predict --config ensemble.yaml --input test.csv --output predictions.csv",
        f"lmsys-ensemble merge-adapters {folders} --output merged",
        "```",
        "",
        "`oof.parquet` holds the out-of-fold predictions as other commands read them, with logits and labels beside "
        "them; `labels.parquet` the labels and groups of the same rows:",
        "",
        "```sh",
        "lmsys-ensemble blend --probabilities oof.parquet OTHER.parquet --labels labels.parquet --out blender.json",
        "lmsys-ensemble report --probabilities oof.parquet --labels labels.parquet --out report.html",
        "```",
        "",
    ]


def markdown(table: pd.DataFrame) -> list[str]:
    """Return the lines of a table of texts in Markdown."""
    rows = [[*table.columns], ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return [f"| {' | '.join(row)} |" for row in rows]
