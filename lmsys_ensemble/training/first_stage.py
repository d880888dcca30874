"""A run that goes on where an earlier one ended: its LoRA weights and head are what it starts from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from lmsys_ensemble.bases.sources import HUB_NAMES
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.adapters import (
    WEIGHTS_FILE,
    account_for_keys,
    account_for_shapes,
    read_adapter_header,
    shapes_of,
)
from lmsys_ensemble.modeling.digests import is_base_of
from lmsys_ensemble.modeling.recipe import SHAPE_KEYS, Recipe, read_recipe
from lmsys_ensemble.modeling.skeleton import adapter_skeleton, empty_classifier
from lmsys_ensemble.training.model import choose_what_learns, lora_config
from lmsys_ensemble.training.settings import TrainSettings

_LORA = {"r": "r", "lora_alpha": "alpha", "use_rslora": "rslora", "use_dora": "dora"}
"""PEFT's names of what must be the same, and the recipe's."""


def check_first_stage(settings: TrainSettings, recipe: Recipe, base: Path) -> None:
    """Make sure that the recipe's ``init_adapter`` fits; only its headers and its configuration are read.

    Parameters
    ----------
    settings : TrainSettings
        The recipe; ``init_adapter`` is a folder.
    recipe : Recipe
        What inference will know of the new adapter.
    base : Path
        Folder of the base model.

    Raises
    ------
    ConfigError
        Names every setting that differs, with both values.
    ModelError
        If the folder is no adapter, or its tensors are not those of the new one.
    """
    folder = Path(str(settings.init_adapter))
    config, shapes = read_adapter_header(folder)
    first = read_recipe(folder)
    if first is None:
        raise ConfigError(
            f"init_adapter {folder} has no recipe.json, so that its base is not known; convert it with "
            "'lmsys-ensemble import-checkpoint'"
        )
    wanted = lora_config(settings.lora, empty_classifier(base, recipe))
    faults = [*_base_faults(recipe, first, base), *_head_faults(recipe, first), *_lora_faults(wanted, config)]
    if faults:
        raise ConfigError(
            f"the adapter in init_adapter {folder} is another one: {'; '.join(faults)}. A second stage has base, LoRA "
            "and head of the first; set them alike, or leave init_adapter out"
        )
    account_for_shapes(shapes_of(adapter_skeleton(base, recipe, wanted)), shapes, folder)


def load_first_stage(wrapped: Any, settings: TrainSettings) -> None:
    """Give a PEFT model the LoRA weights and the head of the recipe's ``init_adapter``.

    Raises
    ------
    ModelError
        If tensors are missing, unexpected, mis-shaped or not finite; lists them.
    """
    folder = Path(str(settings.init_adapter))
    weights = load_file(folder / WEIGHTS_FILE)
    account_for_keys(get_peft_model_state_dict(wrapped, save_embedding_layers=False), weights, folder)
    choose_what_learns(wrapped, settings.lora.first_layer)  # float32: nothing is rounded to the base's format
    set_peft_model_state_dict(wrapped, dict(weights))


def _base_faults(recipe: Recipe, first: Recipe, base: Path) -> Iterator[str]:
    now, then = recipe.base_model, first.base_model
    known = is_base_of(first.training, base)
    if known is not None:  # what its files hold says more than what it is called
        if not known:
            yield f"base_model is {now.name}, whose files are not those of {then.name} that it was trained on"
        return
    for key in SHAPE_KEYS:
        if getattr(then, key) not in (None, getattr(now, key)):
            yield f"base_model has {key} {getattr(now, key)}, was {getattr(then, key)}"
    if _short(now.name) != _short(then.name):
        yield f"base_model is {now.name}, was {then.name}"
    elif None not in (now.revision, then.revision) and now.revision != then.revision:
        yield f"revision is {now.revision}, was {then.revision}"


def _head_faults(recipe: Recipe, first: Recipe) -> Iterator[str]:
    for name in ("pooling", "layers", "hidden_size"):
        now, then = getattr(recipe.head, name), getattr(first.head, name)
        if now != then:
            yield f"head.{name} is {now}, was {then}"
    if recipe.classes != first.classes:
        yield f"classes is {len(recipe.classes)}, was {len(first.classes)}"


def _lora_faults(now: LoraConfig, then: LoraConfig) -> Iterator[str]:
    for name, setting in _LORA.items():
        if getattr(now, name) != getattr(then, name):
            yield f"lora.{setting} is {getattr(now, name)}, was {getattr(then, name)}"
    if _listed(now.target_modules) != _listed(then.target_modules):
        yield f"lora.target_modules is {_listed(now.target_modules)}, was {_listed(then.target_modules)}"
    # PEFT's None is every layer; whether that is what is meant here, tensors tell.
    if then.layers_to_transform is not None and _listed(now.layers_to_transform) != _listed(then.layers_to_transform):
        yield f"trained layers are {_listed(now.layers_to_transform)}, were {_listed(then.layers_to_transform)}"


def _short(name: str) -> str:
    return HUB_NAMES.get(name, name).rstrip("/").rpartition("/")[2]


def _listed(value: Any) -> Any:
    return sorted(value) if isinstance(value, list | set | tuple) else value
