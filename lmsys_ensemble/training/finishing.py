"""After training: what was saved is loaded as inference loads it, measured, and described."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import write_atomically
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.forward import ForwardPass
from lmsys_ensemble.modeling.golden import golden_battles, write_golden
from lmsys_ensemble.modeling.learned_rows import LEARNED_FILE, LEARNED_KEY, LearnedRows, read_learned_rows, united
from lmsys_ensemble.modeling.recipe import Recipe, read_recipe, write_recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.probabilities import Logits, softmax
from lmsys_ensemble.training.card import model_card
from lmsys_ensemble.training.checkpoints import HASHES, compare_runs, describe_run
from lmsys_ensemble.training.curves import PICTURE_FILE, draw_curves
from lmsys_ensemble.training.fit import Fitted
from lmsys_ensemble.training.job import FILES, Job
from lmsys_ensemble.training.unseen import origins
from lmsys_ensemble.training.validation import validate

LAST_FILE = "scorer.yaml"
"""Written last: where it is, the folder is whole."""


@dataclass(frozen=True)
class Trained:
    """An adapter that was trained.

    Attributes
    ----------
    folder : Path
        Adapter, head, ``recipe.json``, ``golden.json``, ``scorer.yaml``, ``learned_rows.safetensors``, curves and a
        model card.
    figures : dict
        Held-out figures by source, as ``recipe.json`` states them.
    held_logits : ndarray of shape (n_held, n_classes)
        Logits of the rows held out, as inference gives them; of length 0 where none were.
    """

    folder: Path
    figures: dict[str, Any]
    held_logits: Logits


def finish(job: Job, fitted: Fitted, say: Callable[[str], object]) -> Trained:
    """Write the recipe of an adapter that was saved, measure it on the rows held out, and write the rest."""
    fit = {
        "losses": [round(loss, 4) for loss in fitted.losses],
        "steps": fitted.n_steps,
        "kept_step": fitted.kept_step,
    }
    training = {**job.provenance(), **_write_learned_rows(job), **fit}
    recipe = write_recipe(job.folder, job.recipe.model_copy(update={"training": training}), FILES)
    trained = _measure(job, recipe, fitted, say)
    _write_scorer(job)
    return trained


def measure_again(job: Job) -> Trained:
    """Measure a folder that is whole.

    Raises
    ------
    ConfigError
        If it is of another run; names what differs.
    """
    recipe = _recipe_of(job.folder)
    compare_runs(_run_of(recipe), job.run, job.folder)
    return Trained(job.folder, recipe.validation, _score_held(job, None))


def run_of_result(folder: Path) -> dict[str, Any]:
    """Return what the run is known by that a folder is the result of, as its recipe says.

    Raises
    ------
    ConfigError
        If it has no recipe.
    """
    return _run_of(_recipe_of(folder))


def _recipe_of(folder: Path) -> Recipe:
    recipe = read_recipe(folder)
    if recipe is None:
        raise ConfigError(f"{folder} holds {LAST_FILE} but no recipe.json; train it anew with --overwrite")
    return recipe


def _run_of(recipe: Recipe) -> dict[str, Any]:
    known = recipe.training
    return describe_run(known.get("settings", {}), {name: known.get(name) for name in HASHES}, known.get("inputs"))


def nothing_held(job: Job) -> Logits:
    """Return the logits of no rows."""
    return np.empty((0, len(job.recipe.classes)), dtype=np.float32)


def _write_learned_rows(job: Job) -> dict[str, str]:
    """Write which rows the adapter has learned from, those of what it started from included, if all are known."""
    before = [read_learned_rows(origin.folder, origin.recipe) for origin in origins(job.settings, job.base)]
    rows = united([LearnedRows.of(job.learn.battles), *before])
    if rows is None:
        (job.folder / LEARNED_FILE).unlink(missing_ok=True)
        return {}
    return {LEARNED_KEY: rows.write(job.folder)}


def _measure(job: Job, recipe: Recipe, fitted: Fitted, say: Callable[[str], object]) -> Trained:
    settings, folder = job.settings, job.folder
    forward = _forward(job)
    golden = job.encoder.encode(golden_battles())
    write_golden(folder, golden, forward.score(golden, settings.batches.tokens), _number_format(job))
    figures: dict[str, Any] = {}
    if len(job.held):
        say(f"measuring on {len(job.held)} rows held out")
    logits = _score_held(job, forward)
    if len(job.held):
        figures = validate(job.learn, job.held, softmax(logits))
    recipe = write_recipe(folder, recipe.model_copy(update={"validation": figures}), FILES)
    drawn = draw_curves(fitted.curve, settings.name)
    if drawn:
        write_atomically(folder / PICTURE_FILE, drawn)
    write_atomically(folder / "README.md", model_card(settings, recipe, with_curves=bool(drawn)))
    return Trained(folder, figures, logits)


def _score_held(job: Job, forward: ForwardPass | None) -> Logits:
    if not len(job.held):
        return nothing_held(job)
    forward = forward or _forward(job)
    return forward.score(job.encoder.encode(job.held.battles), job.settings.batches.tokens)


def _forward(job: Job) -> ForwardPass:
    """Load what was saved as inference does."""
    dtype = "float32" if job.device == "cpu" else "auto"
    compute = ComputeSettings(job.device, dtype, job.settings.quantization)
    return assemble(job.base, job.recipe, compute, adapter=job.folder)


def _number_format(job: Job) -> str:
    if job.settings.quantization != "none":
        return job.settings.quantization
    return "float32" if job.device == "cpu" else hardware.dtype_name(hardware.resolve_dtype("auto", job.device))


def _write_scorer(job: Job) -> None:
    settings = job.settings
    scorer = {"type": settings.scorer, "name": settings.name, "model": job.scorer_model, "adapter": "."}
    if settings.revision:
        scorer["revision"] = settings.revision
    if settings.quantization != "none":
        scorer["quantization"] = settings.quantization
    write_atomically(job.folder / LAST_FILE, yaml.safe_dump(scorer, sort_keys=False))
