"""What the training of one adapter goes by: all that is known before weights are loaded."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmsys_ensemble.bases.sources import resolve_base
from lmsys_ensemble.data.corpus import Labelled, data_hash, origin_hash, rows_by_source
from lmsys_ensemble.encoding.tokens import Encoder
from lmsys_ensemble.files import read_object
from lmsys_ensemble.modeling.adapter_config import CONFIG_FILE
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE
from lmsys_ensemble.modeling.digests import base_digest, base_sha256
from lmsys_ensemble.modeling.recipe import Recipe, TemplateRecipe, describe_base
from lmsys_ensemble.modeling.tokenization import make_encoder
from lmsys_ensemble.training.base_checks import check_positions, check_type
from lmsys_ensemble.training.checkpoints import HASHES, describe_run
from lmsys_ensemble.training.first_stage import check_first_stage
from lmsys_ensemble.training.inputs import describe_inputs, without_paths
from lmsys_ensemble.training.model import check_layers, check_targets
from lmsys_ensemble.training.settings import TrainSettings

FILES = (WEIGHTS_FILE, CONFIG_FILE)
"""What a recipe vouches for."""


@dataclass(frozen=True)
class Job:
    """One adapter that is to be trained.

    Attributes
    ----------
    settings : TrainSettings
        The recipe; a base model that is a folder is called by the folder's name.
    recipe : Recipe
        What inference must know of the model.
    base : Path
        Folder of the base model.
    scorer_model : str
        What ``scorer.yaml`` calls the base model.
    encoder : Encoder
        From battles to token ids.
    learn, held : Labelled
        Rows to learn from, and rows held out.
    folder : Path
        Where the adapter goes.
    device : str
        ``cpu``, ``cuda:0`` and so on.
    run : dict
        What the run is known by, see `lmsys_ensemble.training.checkpoints.describe_run`.
    """

    settings: TrainSettings
    recipe: Recipe
    base: Path
    scorer_model: str
    encoder: Encoder
    learn: Labelled
    held: Labelled
    folder: Path
    device: str
    run: dict[str, Any]

    def provenance(self) -> dict[str, Any]:
        """Return what ``recipe.json`` says of the training before it has begun."""
        return {
            "settings": plain_settings(self.settings),
            **{name: self.run[name] for name in (*HASHES, "inputs") if name in self.run},
            "base_digest": base_digest(self.base),
            "rows": rows_by_source(self.learn),
        }


def plan_job(settings: TrainSettings, learn: Labelled, held: Labelled, folder: Path, device: str) -> Job:
    """Check a recipe against its base model, and return what the training goes by; parameters as for `Job`.

    Raises
    ------
    ConfigError, ModelError
        If the recipe asks for what the base does not have, or its first stage does not fit.
    """
    base = resolve_base(settings.base_model, settings.revision)
    scorer_model = settings.base_model
    if Path(settings.base_model).is_dir():
        # The folder may be moved or given away: no file in it names a path of this machine.
        scorer_model = os.path.relpath(base, folder)
        settings = settings.model_copy(update={"base_model": base.resolve().name})
    recipe = plan_recipe(settings, base)
    check_type(settings, base)
    check_layers(settings.lora, recipe.head.layers or recipe.base_model.num_hidden_layers)
    check_targets(base, recipe, settings.lora)
    check_positions(recipe, base)
    encoder = make_encoder(base, recipe)
    hashes = {
        "data_sha256": data_hash(learn),
        "held_sha256": data_hash(held) if len(held) else None,
        "ids_sources_groups_sha256": origin_hash(learn, held),
        "base_sha256": base_sha256(base),
    }
    run = describe_run(plain_settings(settings), hashes, describe_inputs(settings))
    if settings.init_adapter is not None:
        check_first_stage(settings, recipe, base)
    return Job(settings, recipe, base, scorer_model, encoder, learn, held, folder, device, run)


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


def plain_settings(settings: TrainSettings) -> dict[str, Any]:
    """Return settings as JSON types, with names instead of paths of this machine."""
    values: dict[str, Any] = json.loads(without_paths(settings).model_dump_json())
    return values
