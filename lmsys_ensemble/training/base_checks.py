"""What a recipe asks of its base model, told from ``config.json`` before weights are read."""

import re
from pathlib import Path
from typing import Any

from torch import nn

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import read_object
from lmsys_ensemble.modeling.recipe import MODEL_TYPES, Recipe
from lmsys_ensemble.modeling.skeleton import empty_classifier
from lmsys_ensemble.notices import warn
from lmsys_ensemble.training.settings import TrainSettings

_POSITIONS = re.compile(r"(?:^|\.)(?:position_embeddings|embed_positions|wpe)$")
"""Names of embeddings of absolute positions in transformers."""


class PositionWarning(UserWarning):
    """Rows may be longer than those that a base model was made for."""


def check_type(settings: TrainSettings, base: Path) -> None:
    """Raise `ConfigError` if the scorer that the recipe names does not take the base model."""
    taken, found = MODEL_TYPES.get(settings.scorer), read_object(base / "config.json").get("model_type")
    if taken is not None and found not in taken:
        other = next((name for name, types in MODEL_TYPES.items() if found in types), "classifier")
        raise ConfigError(
            f"scorer is {settings.scorer!r}, which takes {', '.join(taken)}; {settings.base_model} is a {found!r} "
            f"model. Set scorer: {other}"
        )


def check_positions(recipe: Recipe, base: Path) -> None:
    """Compare ``max_tokens`` with the positions that a base model has, or was made for.

    Warns with `PositionWarning` where rotary positions go on beyond them: they have no end, but nothing was learned of
    what lies there. Relative positions in buckets (DeBERTa) have no end either, and the last bucket was learned.

    Raises
    ------
    ConfigError
        If absolute positions are looked up in a table, and there are fewer than ``max_tokens``.
    """
    model = empty_classifier(base, recipe)
    table = position_table(model)
    if table is not None and recipe.max_tokens > table:
        raise ConfigError(
            f"max_tokens is {recipe.max_tokens}, but {type(model).__name__} has embeddings of {table} positions and "
            f"cannot run longer rows; set max_tokens to {table} or less"
        )
    config = model.config.get_text_config()
    made_for = getattr(config, "max_position_embeddings", None)
    if getattr(config, "rope_parameters", None) and isinstance(made_for, int) and recipe.max_tokens > made_for > 0:
        warn(
            f"max_tokens is {recipe.max_tokens}, but {recipe.base_model.name} was made for {made_for} positions "
            "(max_position_embeddings); it runs beyond them, where it has learned nothing. Lower max_tokens, or extend "
            "the base (rope_parameters in its config.json)",
            PositionWarning,
        )


def position_table(model: Any) -> int | None:
    """Return how many positions a model has learned embeddings of; None where it computes them."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Embedding) and _POSITIONS.search(name):
            before = getattr(part, "offset", 0 if part.padding_idx is None else part.padding_idx + 1)
            return int(part.num_embeddings) - int(before)
    return None
