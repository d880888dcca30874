"""One adapter, from labelled rows to a folder that a scorer loads. Folds, stages and teachers all come through here."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lmsys_ensemble.data.corpus import Labelled, data_hash, rows_by_source
from lmsys_ensemble.encoding.tokens import Encoder
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import read_object, write_atomically
from lmsys_ensemble.modeling import hardware
from lmsys_ensemble.modeling.adapter_config import CONFIG_FILE
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE, save_adapter
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.digests import base_digest
from lmsys_ensemble.modeling.forward import ForwardPass
from lmsys_ensemble.modeling.golden import golden_battles, write_golden
from lmsys_ensemble.modeling.recipe import Recipe, TemplateRecipe, describe_base, read_recipe, write_recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.sources import resolve_base
from lmsys_ensemble.modeling.tokenization import make_encoder
from lmsys_ensemble.probabilities import Logits, softmax
from lmsys_ensemble.training.card import model_card
from lmsys_ensemble.training.checkpoints import CHECKPOINTS, check_same_run, compare_runs, describe_run
from lmsys_ensemble.training.curves import PICTURE_FILE, draw_curves
from lmsys_ensemble.training.dataset import encode_both_orders
from lmsys_ensemble.training.distillation import recipe_objective
from lmsys_ensemble.training.examples import Examples, Objective, row_weights
from lmsys_ensemble.training.first_stage import check_first_stage, load_first_stage
from lmsys_ensemble.training.fit import Fitted, fit_lora
from lmsys_ensemble.training.hidden import STORED_FORMAT, HiddenStore
from lmsys_ensemble.training.inputs import describe_inputs, without_paths
from lmsys_ensemble.training.model import arithmetic, build_model, check_layers, check_targets
from lmsys_ensemble.training.processes import is_main, wait_for_main
from lmsys_ensemble.training.settings import TrainSettings
from lmsys_ensemble.training.validation import validate
from lmsys_ensemble.training.watching import CURVES_FILE

logger = logging.getLogger(__name__)

FILES = (WEIGHTS_FILE, CONFIG_FILE)
LAST_FILE = "scorer.yaml"
"""Written last: where it is, the folder is whole."""

MakeObjective = Callable[[Examples, Labelled], Objective]
"""Makes the loss from the examples (rows in both orders, where they are asked for) and the rows they were made of."""


@dataclass(frozen=True)
class Trained:
    """An adapter that was trained.

    Attributes
    ----------
    folder : Path
        Adapter, head, ``recipe.json``, ``golden.json``, ``scorer.yaml``, curves and a model card.
    figures : dict
        Held-out figures by source, as ``recipe.json`` states them.
    held_logits : ndarray of shape (n_held, n_classes)
        Logits of the rows held out, as inference gives them; of length 0 where none were.
    """

    folder: Path
    figures: dict[str, Any]
    held_logits: Logits


def train_adapter(
    settings: TrainSettings,
    learn: Labelled,
    held: Labelled,
    *,
    folder: Path,
    device: str,
    resume: bool = False,
    cache: Path | None = None,
    make_objective: MakeObjective | None = None,
    say: Callable[[str], object] = logger.info,
) -> Trained:
    """Train one adapter with its head from a fresh base, and write all that inference needs.

    Parameters
    ----------
    settings : TrainSettings
        The recipe.
    learn, held : Labelled
        Rows to learn from, and rows held out (maybe none); the latter influence no weight unless
        ``settings.evaluation`` stops early or keeps the best.
    folder : Path
        Where the adapter goes; checkpoints lie in it until it is whole.
    device : str
        ``cpu``, ``cuda:0`` and so on.
    resume : bool
        Go on from the last checkpoint in `folder`. A folder that is whole is measured again and not trained.
    cache : Path, optional
        Folder of hidden states below the first trained layer; without one they are computed in every epoch.
    make_objective : callable, optional
        Makes another loss than the recipe's.
    say : callable
        Told in words what is being done.

    Raises
    ------
    ConfigError, InputError
        If the recipe asks for what the base does not have, its teachers lack rows, its first stage does not fit, or
        `folder` holds checkpoints of another run.
    """
    base = resolve_base(settings.base_model, settings.revision)
    scorer_model = settings.base_model
    if Path(settings.base_model).is_dir():
        # The folder may be moved or given away: no file in it names a path of this machine.
        scorer_model = os.path.relpath(base, folder)
        settings = settings.model_copy(update={"base_model": base.resolve().name})
    recipe = plan_recipe(settings, base)
    check_layers(settings.lora, recipe.head.layers or recipe.base_model.num_hidden_layers)
    check_targets(base, recipe, settings.lora)
    encoder = make_encoder(base, recipe)
    inputs = describe_inputs(settings)
    run = describe_run(
        _plain(settings), data_hash(learn), data_hash(held) if len(held) else None, base_digest(base), inputs
    )
    if settings.init_adapter is not None:
        check_first_stage(settings, recipe, base, run["base_digest"])
    make_objective = make_objective or recipe_objective(settings, learn)
    with hardware.current_device(device):
        if resume and (folder / LAST_FILE).is_file():
            say(f"{folder} is whole: nothing is trained")
            return _measure_again(settings, base, encoder, held, device, folder, run)
        if is_main():
            check_same_run(folder / CHECKPOINTS, run)
        fitted = _learn(
            settings, recipe, base, encoder, learn, held, device, folder, resume, cache, make_objective, run, say
        )
        if not is_main():
            wait_for_main()
            return Trained(folder, {}, _no_logits(recipe))
        recipe = recipe.model_copy(
            update={
                "training": {
                    "settings": _plain(settings),
                    "data_sha256": run["data_sha256"],
                    "base_digest": run["base_digest"],
                    **({"inputs": inputs} if inputs else {}),
                    "rows": rows_by_source(learn),
                    "losses": [round(loss, 4) for loss in fitted.losses],
                    "steps": fitted.n_steps,
                    "kept_step": fitted.kept_step,
                }
            }
        )
        write_recipe(folder, recipe, FILES)
        trained = _finish(settings, recipe, base, encoder, learn, held, device, folder, fitted, say)
    _write_scorer(settings, scorer_model, folder)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    wait_for_main()
    return trained


def plan_recipe(settings: TrainSettings, base: Path) -> Recipe:
    """Return what inference must know of a model that is going to be trained."""
    config = read_object(base / "config.json")
    special = settings.special_tokens
    if special.pad_token_id is None:
        special = special.model_copy(update={"pad_token_id": config.get("pad_token_id")})
    return Recipe(
        base_model=describe_base(base, settings.base_model, settings.revision),
        template=TemplateRecipe(name=settings.template),
        max_tokens=settings.max_tokens,
        truncation=settings.truncation,
        special_tokens=special,
        classes=settings.task.classes,
        head=settings.head,
    )


def _plain(settings: TrainSettings) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(without_paths(settings).model_dump_json())
    return values


def _learn(
    settings: TrainSettings,
    recipe: Recipe,
    base: Path,
    encoder: Encoder,
    learn: Labelled,
    held: Labelled,
    device: str,
    folder: Path,
    resume: bool,
    cache: Path | None,
    make_objective: MakeObjective | None,
    run: dict[str, Any],
    say: Callable[[str], object],
) -> Fitted:
    wrapped = build_model(settings, recipe, base, device)
    if settings.init_adapter is not None:
        load_first_stage(wrapped, settings)
    encoded, labels, rows = encode_both_orders(learn, encoder, recipe.task, settings.swap_augmentation)
    examples = Examples(encoded, labels, row_weights(learn, settings.data)[rows])
    unseen = None
    if len(held):
        unseen = Examples(encoder.encode(held.battles), held.labels, row_weights(held, settings.data))
    store = None
    if cache is not None:
        identity = {
            "base_digest": run["base_digest"],
            "first_layer": settings.lora.first_layer,
            "quantization": settings.quantization,
            "arithmetic": str(arithmetic(settings.autocast, device)),
            "stored_as": str(STORED_FORMAT),
            "soft_capping": recipe.soft_capping,
        }
        hidden_size = wrapped.get_base_model().config.get_text_config().hidden_size
        store = HiddenStore(cache, identity, hidden_size, say)
    fitted = fit_lora(
        wrapped,
        recipe,
        settings,
        examples,
        held=unseen,
        objective=make_objective(examples, learn) if make_objective else None,
        store=store,
        folder=folder / CHECKPOINTS,
        resume=resume,
        curves=folder / CURVES_FILE,
    )
    if is_main():
        save_adapter(wrapped, folder, settings.base_model)
    return fitted


def _forward(settings: TrainSettings, recipe: Recipe, base: Path, device: str, folder: Path) -> ForwardPass:
    """Load what was saved as inference does."""
    dtype = "float32" if device == "cpu" else "auto"
    return assemble(base, recipe, ComputeSettings(device, dtype, settings.quantization), adapter=folder)


def _finish(
    settings: TrainSettings,
    recipe: Recipe,
    base: Path,
    encoder: Encoder,
    learn: Labelled,
    held: Labelled,
    device: str,
    folder: Path,
    fitted: Fitted,
    say: Callable[[str], object],
) -> Trained:
    """Measure what was saved on the rows held out, and write the rest."""
    forward = _forward(settings, recipe, base, device, folder)
    golden = encoder.encode(golden_battles())
    number_format = "float32" if device == "cpu" else hardware.dtype_name(hardware.resolve_dtype("auto", device))
    if settings.quantization != "none":
        number_format = settings.quantization
    write_golden(folder, golden, forward.score(golden, settings.batches.tokens), number_format)
    figures: dict[str, Any] = {}
    logits = _no_logits(recipe)
    if len(held):
        say(f"measuring on {len(held)} rows held out")
        logits = forward.score(encoder.encode(held.battles), settings.batches.tokens)
        figures = validate(learn, held, softmax(logits))
    recipe = write_recipe(folder, recipe.model_copy(update={"validation": figures}), FILES)
    drawn = draw_curves(fitted.curve, settings.name)
    if drawn:
        write_atomically(folder / PICTURE_FILE, drawn)
    write_atomically(folder / "README.md", model_card(settings, recipe, with_curves=bool(drawn)))
    return Trained(folder, figures, logits)


def _measure_again(
    settings: TrainSettings,
    base: Path,
    encoder: Encoder,
    held: Labelled,
    device: str,
    folder: Path,
    run: dict[str, Any],
) -> Trained:
    recipe = read_recipe(folder)
    if recipe is None:
        raise ConfigError(f"{folder} holds {LAST_FILE} but no recipe.json; train it anew with --overwrite")
    before = describe_run(
        recipe.training.get("settings", {}), recipe.training.get("data_sha256", ""), run["held_sha256"],
        run["base_digest"], recipe.training.get("inputs", {}),
    )  # fmt: skip
    compare_runs(before, run, folder)
    logits = _no_logits(recipe)
    if len(held):
        forward = _forward(settings, recipe, base, device, folder)
        logits = forward.score(encoder.encode(held.battles), settings.batches.tokens)
    return Trained(folder, recipe.validation, logits)


def _no_logits(recipe: Recipe) -> Logits:
    return np.empty((0, len(recipe.classes)), dtype=np.float32)


def _write_scorer(settings: TrainSettings, model: str, folder: Path) -> None:
    scorer = {"type": settings.scorer, "name": settings.name, "model": model, "adapter": "."}
    if settings.revision:
        scorer["revision"] = settings.revision
    if settings.quantization != "none":
        scorer["quantization"] = settings.quantization
    write_atomically(folder / LAST_FILE, yaml.safe_dump(scorer, sort_keys=False))
