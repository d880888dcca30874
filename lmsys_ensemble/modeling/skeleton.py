"""A model without weights: which tensors an adapter must bring, told in a moment and without memory."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import AutoModelForSequenceClassification

from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling.adapters import inject_lora
from lmsys_ensemble.modeling.building import LOAD_LOCK
from lmsys_ensemble.modeling.forward import prepare_head
from lmsys_ensemble.modeling.loading import LoadSettings, load_config
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.settings import ComputeSettings


def empty_classifier(base: Path, recipe: Recipe) -> Any:
    """Return a classifier without weights, of which only ``config.json`` is read.

    Raises
    ------
    ModelError
        If it cannot be built.
    ConfigError
        If the recipe's pooling is not possible with this model.
    """
    settings = LoadSettings.of(ComputeSettings(device="cpu", dtype="float32"), recipe)
    with LOAD_LOCK, torch.device("meta"):
        model_config = load_config(base, settings)
        try:
            model = AutoModelForSequenceClassification.from_config(model_config)
        except Exception as error:  # a missing name is a KeyError, a size that does not fit an AssertionError, ...
            reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
            raise ModelError(f"{base}/config.json describes no classifier that can be built: {reason}") from error
        prepare_head(model, recipe.head, len(recipe.classes))
    return model


def adapter_skeleton(base: Path, recipe: Recipe, config: LoraConfig) -> Mapping[str, torch.Tensor]:
    """Return a tensor without memory for every one that an adapter of `config` has for a base model.

    Parameters
    ----------
    base : Path
        Folder of the base model, of which only ``config.json`` is read.
    recipe : Recipe
        Classes, depth and head.
    config : LoraConfig
        The adapter's; it is not changed.

    Raises
    ------
    ModelError
        If the model cannot be built, or the adapter does not fit it.
    ConfigError
        If the recipe's pooling is not possible with this model.
    """
    with LOAD_LOCK, torch.device("meta"):
        model = empty_classifier(base, recipe)
        copied = copy.deepcopy(config)
        copied.init_lora_weights = False  # there is nothing to initialise; some ways would decompose the base's weights
        wrapped = inject_lora(model, copied)
    tensors: Mapping[str, torch.Tensor] = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return tensors
