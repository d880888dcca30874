"""What ``lmsys-ensemble train recipe.yaml`` reads."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from lmsys_ensemble.cleaning.settings import HygieneSettings
from lmsys_ensemble.data.corpus import DataFile, as_text
from lmsys_ensemble.data.sources import split_source
from lmsys_ensemble.encoding.truncation import Policy
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import read_mapping
from lmsys_ensemble.modeling.recipe import HeadRecipe, SpecialTokensRecipe
from lmsys_ensemble.schema import Task, task_of
from lmsys_ensemble.settings import Settings, parse_settings
from lmsys_ensemble.training.teacher_settings import DistillationSettings


class DataSettings(Settings):
    """Labelled battles and how they are divided.

    ``holdout`` is the share of the groups (prompts) held out, by source; ``default`` is for the sources it does not
    name. ``weights`` multiplies the loss of a source's rows, ``class_weights`` that of a class (``model_a``,
    ``model_b``, ``tie``), and a row whose prompt occurs n times weighs ``n ** -frequency_penalty``. All are relative to
    the mean weight of all training rows, so that a step of heavy rows counts for more. ``rows`` caps a source's
    training rows. Sources that the data do not have are an error.

    An entry of ``files`` is a file in the library's columns, or ``SOURCE=FILE`` for a public format (see
    `lmsys_ensemble.data.sources.SOURCES`). ``hygiene`` cleans the rows first, and says of every row that it touches
    why; ``{}`` takes the defaults of `HygieneSettings`, None leaves the rows as they come. Rows are then held out by
    groups of equal and nearly equal prompts, and those held out stay as they came.

    With folds every row is held out once, so that ``holdout`` is not used, and all rows are cleaned.
    """

    files: list[str] = Field(default=[])
    hygiene: HygieneSettings | None = None
    holdout: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(default={"default": 0.1})
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default={})
    class_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default={})
    frequency_penalty: float = Field(default=0.0, ge=0, le=1)
    rows: dict[str, Annotated[int, Field(ge=0)]] = Field(default={})

    @field_validator("holdout", "weights", "rows", mode="before")
    @classmethod
    def _sources_are_texts(cls, values: Any) -> Any:
        """Take ``1: 6.0`` for what it says: YAML reads the name of a source as a number where it looks like one."""
        if not isinstance(values, dict):
            return values
        return {as_text(name) if isinstance(name, int | float) else name: value for name, value in values.items()}


class LoraSettings(Settings):
    """LoRA as in PEFT.

    Layers below ``first_layer`` (or the first ``freeze_layers`` layers, which says the same) stay as they are, and
    their output is computed only once. ``layers_to_transform`` lists single layers instead. ``rslora`` scales updates
    by alpha over the square root of the rank (Kalajdzievski 2023), ``dora`` trains magnitudes beside directions (Liu
    et al. 2024).
    """

    r: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: list[str] = Field(default=["q_proj", "k_proj", "v_proj", "o_proj"], min_length=1)
    first_layer: int = Field(default=0, ge=0)
    layers_to_transform: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)
    rslora: bool = False
    dora: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_way_to_name_layers(cls, values: Any) -> Any:
        """Turn ``freeze_layers`` and ``layers_to_transform`` into ``first_layer``, which all else goes by."""
        if not isinstance(values, dict):
            return values
        named = [key for key in ("first_layer", "freeze_layers", "layers_to_transform") if values.get(key) is not None]
        if set(named) == {"first_layer", "layers_to_transform"} and values["first_layer"] == min(
            values["layers_to_transform"], default=None
        ):
            return values  # as it was written down after validation
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} say the same in different ways; leave one of them out")
        values = dict(values)
        if "freeze_layers" in values:
            values["first_layer"] = values.pop("freeze_layers") or 0
        layers = values.get("layers_to_transform")
        if isinstance(layers, list) and layers and all(isinstance(layer, int) for layer in layers):
            values["first_layer"] = min(layers)
        return values


class OptimizerSettings(Settings):
    """Head first, then LoRA and head together.

    The head starts as a logistic regression on the frozen model's pooled states, with ``head_l2`` times the squared
    norm of its weights (on standardised states) as penalty; None starts it at random, and so do heads with a hidden
    layer and those of encoders. Then all that learns is trained for ``epochs``; 0 epochs leave the base as it is.

    ``name`` and ``schedule`` are transformers' own. ``warmup`` is the share of the steps that the rate rises in.
    ``rows_per_step`` rows make one step of the optimiser, whatever they are computed in (see `BatchSettings`).
    """

    name: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = "adamw_torch"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    head_l2: float | None = Field(default=0.3, gt=0, allow_inf_nan=False)
    epochs: int = Field(default=1, ge=0)
    learning_rate: float = Field(default=2e-4, gt=0, allow_inf_nan=False)
    head_learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    head_weight_decay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    rows_per_step: int = Field(default=32, ge=1)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    max_gradient_norm: float = Field(default=1.0, gt=0)


class BatchSettings(Settings):
    """What a step's rows are computed in.

    They are divided into batches of at most ``tokens`` tokens (padding included) and, where it is set, ``rows`` rows;
    gradients of all batches add up to those of one large batch. ``by_length`` puts rows of similar length into one
    step. ``packed`` rows lie one behind the other without padding; ``auto`` packs where that was measured to pay
    (decoders on the CPU), ``padded`` is transformers' own way.
    """

    tokens: int = Field(default=2048, ge=1)
    rows: int | None = Field(default=None, ge=1)
    by_length: bool = True
    layout: Literal["auto", "padded", "packed"] = "auto"


class EvaluationSettings(Settings):
    """Log loss on the rows held out, in training.

    It is measured ``per_epoch`` times an epoch (0: never). ``patience`` stops after so many measurements without a
    new best one, and ``keep_best`` (by default where there is a patience) takes the best weights instead of the last.
    Both choose by the rows held out, whose figures are then a little too good.
    """

    per_epoch: int = Field(default=1, ge=0)
    patience: int | None = Field(default=None, ge=1)
    keep_best: bool | None = None

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if not self.per_epoch and (self.patience is not None or self.keep_best):
            raise ValueError("patience and keep_best need per_epoch above 0")
        return self

    @property
    def keeps_best(self) -> bool:
        """Whether the best weights are taken."""
        return self.patience is not None if self.keep_best is None else self.keep_best


class TrainSettings(Settings):
    """A training run.

    ``quantization`` loads the base in bitsandbytes' 4-bit or 8-bit (QLoRA); a base that is stored so needs no setting.
    ``gradient_checkpointing`` computes activations twice instead of keeping them. ``checkpoint_steps`` is how often a
    checkpoint to resume from is written (by default with every evaluation). ``report_to`` may name ``tensorboard``:
    its event files, whose names hold that of this machine, go to the folder ``tensorboard`` beside the adapter.

    ``autocast`` is the number format of the arithmetic in training (weights that learn stay float32; with float16 the
    loss is scaled, so that small gradients do not vanish). What is measured and saved at the end is computed in float32
    on a CPU, as inference does.

    ``distillation`` adds teachers' predictions to the loss. ``init_adapter`` is the folder of an earlier run, beside
    the recipe: LoRA weights and head start as they ended there, so that ``optimizer.head_l2`` is not used. Base, LoRA
    and head must be the same; data, template, length and optimiser may differ. It must not have learned from rows held
    out, which is checked by hashes of rows that every training writes. With folds every row is held out once:
    ``{fold}`` in the folder's name stands for the number of the fold, so that each starts from a first stage that has
    not seen its rows, such as ``first/fold-{fold}`` of an earlier training with the same data and folds.
    """

    called_elsewhere: ClassVar[Mapping[str, str]] = {
        "per_device_train_batch_size": "optimizer.rows_per_step for a whole step, batches.rows for one batch of it",
        "train_batch_size": "optimizer.rows_per_step for a whole step, batches.rows for one batch of it",
        "batch_size": "optimizer.rows_per_step for a whole step, batches.rows for one batch of it",
        "gradient_accumulation_steps": "optimizer.rows_per_step, which is that times the batch size",
        "num_train_epochs": "optimizer.epochs",
        "optim": "optimizer.name",
        "lr": "optimizer.learning_rate",
        "lr_scheduler_type": "optimizer.schedule",
        "warmup_ratio": "optimizer.warmup",
        "warmup_steps": "optimizer.warmup, a share of all steps",
        "max_grad_norm": "optimizer.max_gradient_norm",
        "label_smoothing_factor": "optimizer.label_smoothing",
        "fp16": "autocast: float16",
        "bf16": "autocast: bfloat16",
        "load_in_4bit": "quantization: nf4",
        "load_in_8bit": "quantization: int8",
        "max_length": "max_tokens",
        "max_seq_length": "max_tokens",
        "model_name_or_path": "base_model",
        "num_labels": "classes",
        "lora_r": "lora.r",
        "lora_alpha": "lora.alpha",
        "lora_dropout": "lora.dropout",
        "eval_strategy": "evaluation.per_epoch",
        "eval_steps": "evaluation.per_epoch, times per epoch",
        "save_steps": "checkpoint_steps",
        "early_stopping_patience": "evaluation.patience",
        "group_by_length": "batches.by_length",
        "n_splits": "no key: give --folds N to lmsys-ensemble train",
        "output_dir": "no key: give --output to lmsys-ensemble train",
    }

    version: Literal[1] = 1
    name: str
    scorer: Literal["llama", "gemma", "classifier"]
    base_model: str
    revision: str | None = None
    data: DataSettings = DataSettings()
    template: str = "turns"
    max_tokens: int = Field(default=2048, ge=8)
    truncation: Policy = "balanced"
    special_tokens: SpecialTokensRecipe = SpecialTokensRecipe()
    classes: int = Field(default=3, ge=2, le=3)
    head: HeadRecipe = HeadRecipe()
    quantization: Literal["none", "nf4", "int8"] = "none"
    lora: LoraSettings = LoraSettings()
    init_adapter: str | None = Field(default=None, min_length=1)
    distillation: DistillationSettings | None = None
    optimizer: OptimizerSettings = OptimizerSettings()
    batches: BatchSettings = BatchSettings()
    gradient_checkpointing: bool = False
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint_steps: int | None = Field(default=None, ge=1)
    report_to: list[Literal["tensorboard"]] = Field(default=[])
    swap_augmentation: bool = True
    autocast: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _classes_have_names(self) -> Self:
        unknown = sorted(set(self.data.class_weights) - set(self.task.classes))
        if unknown:
            raise ValueError(
                f"data.class_weights names {', '.join(unknown)}; the classes are {', '.join(self.task.classes)}"
            )
        return self

    @property
    def task(self) -> Task:
        """The task with so many classes."""
        return task_of(self.classes)


def read_train_settings(path: Path) -> TrainSettings:
    """Read a training recipe.

    Raises
    ------
    ConfigError
        If the file is not there or a setting is wrong.
    """
    values = read_mapping(path)
    if isinstance(values, dict) and "scorers" in values:
        raise ConfigError(f"{path} describes an ensemble, not a training; recipes name a base_model and no scorers")
    return parse_settings(TrainSettings, values, path)


def data_files(settings: TrainSettings, recipe_folder: Path, data_folder: Path | None) -> list[DataFile]:
    """Return the files of the training data: in `data_folder` where one is given, else beside the recipe.

    Raises
    ------
    ConfigError
        If the recipe names no file, or one is not there.
    """
    if not settings.data.files:
        raise ConfigError("the recipe names no data.files; name them, or give the rows as a table (df=)")
    folder = data_folder or recipe_folder
    split = [split_source(os.path.expandvars(name), folder) for name in settings.data.files]
    files = [DataFile(folder / name, source) for source, name in split]
    missing = [str(file.path) for file in files if not file.path.is_file()]
    if missing:
        raise ConfigError(f"training data are not there: {', '.join(missing)}; say where with --data FOLDER")
    return files
