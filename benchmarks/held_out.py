"""Rows that no bundled model was trained on, found by the split that their recipes had when they were trained.

Since then rows whose prompts are equal are held out together, whatever their groups are called. These models may have
learned from a prompt of these rows with other responses: PandaLM's prompts are AlpacaEval's, too.
"""

import os
from pathlib import Path

import numpy as np

from lmsys_ensemble.config import models_folder
from lmsys_ensemble.data.corpus import Labelled, read_labelled
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training.dataset import split
from lmsys_ensemble.training.settings import read_train_settings

FILE = "pandalm_human.parquet"
MODELS = ("smollm2-135m", "gemma-3-270m")


def held_out(data: Labelled) -> Labelled:
    """Return the rows that both models' recipes hold out."""
    kept = []
    for name in MODELS:
        settings = read_train_settings(models_folder() / name / "train.yaml")
        kept.append(set(split(data, settings.data, settings.seed)[1].battles.ids))
    wanted = kept[0] & kept[1]
    return data.take(np.flatnonzero([row in wanted for row in data.battles.ids]))


def read_held_out() -> Labelled | None:
    """Read those rows from $LMSYS_ENSEMBLE_DATA; None, with a word, where the file is absent."""
    folder = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / FILE).is_file():
        print(f"skipped: no {FILE} in {folder}; set LMSYS_ENSEMBLE_DATA")
        return None
    return held_out(read_labelled([folder / FILE], THREE_WAY))
