"""Training of adapters, heads and lexical models. Reaches scoring through files it writes, never through imports.

`teacher_settings`  What is learned from teachers, and how.
`settings`          What ``lmsys-ensemble train recipe.yaml`` reads.
`inputs`            What a run reads beside its data.
`labelling_report`  Which rows got pseudo-labels, and which did not.
`pseudo_labels`     What models say of unlabelled battles, as labels.
`dataset`           Labelled battles: divided by group, encoded in both orders.
`rows`              What a run learns from and is measured on: cleaned, grouped by prompt, divided.
`examples`          Token sequences with labels and weights, and the loss on them.
`distillation`      Learning from teachers.
`batches`           Which rows make a step, and in which batches they are computed.
`model`             Base, LoRA and head, and their forward pass with gradients.
`base_checks`       What a recipe asks of its base model.
`first_stage`       A run that goes on where an earlier one ended.
`hidden`            Hidden states that enter the first trained layer, computed once and kept.
`head`              A head by logistic regression on pooled hidden states.
`rewards`           A reward head on a frozen base.
`processes`         Several processes of one launcher.
`checkpoints`       What a run resumes from.
`watching`          A bar and a table of curves while it runs.
`curves`            The picture of the curves.
`trainer`           transformers' Trainer for battles.
`fit`               From examples to weights.
`validation`        Held-out figures beside baselines that know nothing of the texts.
`card`              Model cards.
`out_of_fold`       Out-of-fold predictions and the figures that are measured on them.
`unseen`            Whether what a run starts from has learned from rows held out.
`job`               What the training of one adapter goes by.
`finishing`         What was saved is measured and described.
`locks`             One process at a time for an output, or a fold.
`output`            The folder of a training, and how a result takes its place.
`adapter`           One adapter, from labelled rows to a folder that scores.
`run`               One training run, from a recipe to a folder.
`previewing`         What a training will be, without training.
`fold_places`       Where folds lie, and how they take the places of others.
`folds_card`        What lies beside the folds: an ensemble of all, and a page.
`folds`             One adapter per fold, each from a fresh base.
`lexical_card`      The page beside a lexical model.
`lexical`           A lexical model, fitted to all rows and measured out of fold.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import lmsys_ensemble.modeling  # noqa: F401 - quietens bitsandbytes, before peft imports that

if TYPE_CHECKING:
    from lmsys_ensemble.modeling.learned_rows import SeenRowsWarning as SeenRowsWarning
    from lmsys_ensemble.training.adapter import train_adapter as train_adapter
    from lmsys_ensemble.training.finishing import Trained as Trained
    from lmsys_ensemble.training.folds import TrainedFolds as TrainedFolds
    from lmsys_ensemble.training.folds import kfold as kfold
    from lmsys_ensemble.training.lexical import FittedLexical as FittedLexical
    from lmsys_ensemble.training.lexical import fit_lexical as fit_lexical
    from lmsys_ensemble.training.previewing import preview as preview
    from lmsys_ensemble.training.rewards import train_reward_head as train_reward_head
    from lmsys_ensemble.training.run import train as train
    from lmsys_ensemble.training.settings import TrainSettings as TrainSettings

_EXPORTS = {
    "Trained": "lmsys_ensemble.training.finishing",
    "train_adapter": "lmsys_ensemble.training.adapter",
    "TrainedFolds": "lmsys_ensemble.training.folds",
    "kfold": "lmsys_ensemble.training.folds",
    "FittedLexical": "lmsys_ensemble.training.lexical",
    "fit_lexical": "lmsys_ensemble.training.lexical",
    "preview": "lmsys_ensemble.training.previewing",
    "train": "lmsys_ensemble.training.run",
    "train_reward_head": "lmsys_ensemble.training.rewards",
    "TrainSettings": "lmsys_ensemble.training.settings",
    "SeenRowsWarning": "lmsys_ensemble.modeling.learned_rows",
}
__all__ = [
    "FittedLexical",
    "SeenRowsWarning",
    "TrainSettings",
    "Trained",
    "TrainedFolds",
    "fit_lexical",
    "kfold",
    "preview",
    "train",
    "train_adapter",
    "train_reward_head",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: torch is imported with it."""
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
