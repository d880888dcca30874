"""Rows that no bundled model was trained on, found by the recipes' own split."""

import numpy as np

from lmsys_ensemble.config import models_folder
from lmsys_ensemble.training.dataset import Labelled, split
from lmsys_ensemble.training.settings import read_train_settings

MODELS = ("smollm2-135m", "gemma-3-270m")


def held_out(data: Labelled) -> Labelled:
    """Return the rows that both models' recipes hold out."""
    kept = []
    for name in MODELS:
        settings = read_train_settings(models_folder() / name / "train.yaml")
        kept.append(set(split(data, settings.data, settings.seed)[1].battles.ids))
    wanted = kept[0] & kept[1]
    return data.take(np.flatnonzero([row in wanted for row in data.battles.ids]))
