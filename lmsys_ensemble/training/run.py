"""One training run, from a recipe to a folder that a scorer loads."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from peft import LoraConfig

from lmsys_ensemble.encoding.templates import get_template
from lmsys_ensemble.encoding.tokens import Encoder
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import check_new_folder, read_mapping, write_atomically
from lmsys_ensemble.modeling import hardware
from lmsys_ensemble.modeling.adapter_config import CONFIG_FILE
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE, inject_lora, save_adapter
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.forward import has_plain_head, prepare_head
from lmsys_ensemble.modeling.golden import golden_battles, write_golden
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.recipe import Recipe, TemplateRecipe, describe_base, write_recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.sources import locate_base, resolve_base
from lmsys_ensemble.modeling.tokenization import make_encoder
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.training.card import model_card
from lmsys_ensemble.training.dataset import (
    Labelled,
    data_hash,
    encode_both_orders,
    read_labelled,
    rows_by_source,
    split,
)
from lmsys_ensemble.training.lora import TOKENS_PER_BATCH, Examples, arithmetic, fit_lora
from lmsys_ensemble.training.settings import TrainSettings, data_files, read_train_settings
from lmsys_ensemble.training.validation import validate

logger = logging.getLogger(__name__)

FILES = (WEIGHTS_FILE, CONFIG_FILE)


def train(
    recipe_path: str | Path,
    output: str | Path,
    *,
    data_folder: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    say: Callable[[str], None] = logger.info,
) -> dict[str, Any]:
    """Train a LoRA adapter with its head and write all that inference needs.

    Parameters
    ----------
    recipe_path : str or Path
        YAML file, see `lmsys_ensemble.training.settings.TrainSettings`.
    output : str or Path
        Folder that receives adapter, head, ``recipe.json``, ``golden.json``, ``scorer.yaml`` and a model card.
    data_folder : str or Path, optional
        Where the recipe's data files lie; by default beside the recipe.
    device : str
        ``cpu``, ``cuda:0`` and so on, or ``auto``.
    overwrite : bool
        Whether a folder that is not empty may be written to.
    say : callable
        Told in words what is being done.

    Returns
    -------
    dict
        Held-out figures, as ``recipe.json`` states them.

    Raises
    ------
    ConfigError, InputError
        If the recipe or the data cannot be used; before anything is loaded.
    """
    path, folder = Path(recipe_path), Path(output)
    check_new_folder(
        folder, overwrite=overwrite, cure="a trained adapter is not replaced unasked: give a new folder, or --overwrite"
    )
    settings = read_train_settings(path)
    get_template(settings.template)
    locate_base(settings.base_model, settings.revision)
    device = hardware.check_device(hardware.list_devices()[0] if device == "auto" else device)
    task = THREE_WAY if settings.classes == THREE_WAY.n_classes else TWO_WAY
    data = read_labelled(data_files(settings, path.parent, Path(data_folder) if data_folder else None), task)
    learn, held = split(data, settings.data, settings.seed)
    say(f"{len(learn)} rows to learn from, {len(held)} held out")
    base = resolve_base(settings.base_model, settings.revision)
    scorer_model = settings.base_model
    if Path(settings.base_model).is_dir():
        # What is passed on names no path of this machine.
        scorer_model = os.path.relpath(base, folder)
        settings = settings.model_copy(update={"base_model": base.resolve().name})
    recipe = _recipe(settings, base, task.classes)
    encoder = make_encoder(base, recipe)
    with hardware.current_device(device):
        losses = _learn(settings, recipe, base, encoder, learn, device, folder)
    recipe = recipe.model_copy(
        update={
            "training": {
                "settings": json.loads(settings.model_dump_json()),
                "data_sha256": data_hash(learn),
                "rows": rows_by_source(learn),
                "losses": [round(loss, 4) for loss in losses],
            }
        }
    )
    write_recipe(folder, recipe, FILES)
    with hardware.current_device(device):
        figures = _finish(settings, recipe, base, encoder, learn, held, device, folder, say)
    scorer = {"type": settings.scorer, "name": settings.name, "model": scorer_model, "adapter": "."}
    if settings.revision:
        scorer["revision"] = settings.revision
    write_atomically(folder / "scorer.yaml", yaml.safe_dump(scorer, sort_keys=False))
    return figures


def _recipe(settings: TrainSettings, base: Path, classes: tuple[str, ...]) -> Recipe:
    config = read_mapping(base / "config.json")
    depth = settings.head.layers or config.get("num_hidden_layers")
    if depth is not None and settings.lora.first_layer >= depth:
        raise ConfigError(
            f"lora.first_layer is {settings.lora.first_layer}, but only {depth} layers run; it must be less"
        )
    special = settings.special_tokens
    if special.pad_token_id is None:
        special = special.model_copy(update={"pad_token_id": config.get("pad_token_id")})
    return Recipe(
        base_model=describe_base(base, settings.base_model, settings.revision),
        template=TemplateRecipe(name=settings.template),
        max_tokens=settings.max_tokens,
        truncation=settings.truncation,
        special_tokens=special,
        classes=classes,
        head=settings.head,
    )


def _learn(
    settings: TrainSettings,
    recipe: Recipe,
    base: Path,
    encoder: Encoder,
    learn: Labelled,
    device: str,
    folder: Path,
) -> list[float]:
    dtype = torch.float32 if device == "cpu" else arithmetic(settings.autocast, device)
    load = LoadSettings(len(recipe.classes), device, dtype, n_layers=recipe.head.layers)
    model = load_classifier(base, load, head_follows=True)
    if not has_plain_head(model) or not hasattr(model.base_model, "layers"):
        raise ConfigError(
            f"{settings.base_model} is no decoder with one linear head; training takes Llama, Gemma, Qwen"
        )
    torch.manual_seed(settings.seed)
    prepare_head(model, recipe.head.pooling, len(recipe.classes))
    torch.nn.init.normal_(model.score.weight, std=0.01)
    lora = settings.lora
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        layers_to_transform=list(range(lora.first_layer, model.config.num_hidden_layers)),
        layers_pattern="layers",
    )
    wrapped = inject_lora(model, config)
    encoded, labels, rows = encode_both_orders(learn, encoder, recipe.task, settings.swap_augmentation)
    weights = np.array([settings.data.weights.get(source, 1.0) for source in learn.sources])[rows]
    losses = fit_lora(wrapped, recipe, settings, Examples(encoded, labels, weights))
    save_adapter(wrapped, folder, settings.base_model)
    return losses


def _finish(
    settings: TrainSettings,
    recipe: Recipe,
    base: Path,
    encoder: Encoder,
    learn: Labelled,
    held: Labelled,
    device: str,
    folder: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Load what was saved as inference does, measure it on the rows held out, and write the rest."""
    compute = ComputeSettings(device, "float32" if device == "cpu" else "auto")
    forward = assemble(base, recipe, compute, adapter=folder)
    golden = encoder.encode(golden_battles())
    number_format = "float32" if device == "cpu" else hardware.dtype_name(hardware.resolve_dtype("auto", device))
    write_golden(folder, golden, forward.score(golden, TOKENS_PER_BATCH), number_format)
    figures: dict[str, Any] = {}
    if len(held):
        say(f"measuring on {len(held)} rows held out")
        probabilities = softmax(forward.score(encoder.encode(held.battles), TOKENS_PER_BATCH))
        figures = validate(learn, held, probabilities)
    recipe = write_recipe(folder, recipe.model_copy(update={"validation": figures}), FILES)
    write_atomically(folder / "README.md", model_card(settings, recipe))
    return figures
