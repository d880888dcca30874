"""What ``lmsys-ensemble train recipe.yaml`` reads."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from lmsys_ensemble.encoding.truncation import Policy
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import Settings, parse_settings, read_mapping
from lmsys_ensemble.modeling.recipe import HeadRecipe, SpecialTokensRecipe


class DataSettings(Settings):
    """Labelled battles and how they are divided.

    ``holdout`` is the share of the groups (prompts) held out, by source; ``default`` is for the sources it does not
    name. ``weights`` multiplies the loss of a source's rows; ``rows`` caps a source's training rows.
    """

    files: list[str]
    holdout: dict[str, float] = Field(default={"default": 0.1})
    weights: dict[str, float] = Field(default={})
    rows: dict[str, int] = Field(default={})


class LoraSettings(Settings):
    """LoRA as in PEFT. Layers below ``first_layer`` stay as they are, and their output is computed only once."""

    r: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: list[str] = Field(default=["q_proj", "k_proj", "v_proj", "o_proj"])
    first_layer: int = Field(default=0, ge=0)


class OptimizerSettings(Settings):
    """Head first, then LoRA and head together.

    The head starts as a logistic regression on the frozen model's pooled states, with ``head_l2`` times the squared
    norm of its weights (on standardised states) as penalty; None starts it at random. Then all that learns is trained
    for ``epochs`` by AdamW with a linear warm-up and a cosine decay to zero; 0 epochs leave the base as it is.
    """

    head_l2: float | None = Field(default=0.3, gt=0)
    epochs: int = Field(default=1, ge=0)
    learning_rate: float = Field(default=2e-4, gt=0)
    head_learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    head_weight_decay: float = Field(default=0.1, ge=0)
    rows_per_step: int = Field(default=32, ge=1)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    max_gradient_norm: float = Field(default=1.0, gt=0)


class TrainSettings(Settings):
    """A training run.

    ``autocast`` is the number format of the arithmetic in training (weights that learn stay float32; with float16 the
    loss is scaled, so that small gradients do not vanish). What is measured and saved at the end is computed in float32
    on a CPU, as inference does.
    """

    version: Literal[1] = 1
    name: str
    scorer: Literal["llama", "gemma", "classifier"]
    base_model: str
    revision: str | None = None
    data: DataSettings
    template: str = "turns"
    max_tokens: int = Field(default=2048, ge=8)
    truncation: Policy = "balanced"
    special_tokens: SpecialTokensRecipe = SpecialTokensRecipe()
    classes: int = Field(default=3, ge=2, le=3)
    head: HeadRecipe = HeadRecipe()
    lora: LoraSettings = LoraSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    swap_augmentation: bool = True
    autocast: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = 0


def read_train_settings(path: Path) -> TrainSettings:
    """Read a training recipe.

    Raises
    ------
    ConfigError
        If the file is not there or a setting is wrong.
    """
    return parse_settings(TrainSettings, read_mapping(path), path)


def data_files(settings: TrainSettings, recipe_folder: Path, data_folder: Path | None) -> list[Path]:
    """Return the paths of the training data: in `data_folder` where one is given, else beside the recipe.

    Raises
    ------
    ConfigError
        If a file is not there.
    """
    folder = data_folder or recipe_folder
    paths = [folder / os.path.expandvars(name) for name in settings.data.files]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise ConfigError(f"training data are not there: {', '.join(missing)}; say where with --data FOLDER")
    return paths
