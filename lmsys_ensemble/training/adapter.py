"""One adapter, from labelled rows to a folder that a scorer loads. Folds, stages and teachers all come through here."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.modeling.adapters import save_adapter
from lmsys_ensemble.training.checkpoints import CHECKPOINTS
from lmsys_ensemble.training.dataset import encode_both_orders
from lmsys_ensemble.training.distillation import recipe_objective
from lmsys_ensemble.training.examples import Examples, Objective, row_weights
from lmsys_ensemble.training.finishing import Trained, finish, measure_again, nothing_held
from lmsys_ensemble.training.first_stage import load_first_stage
from lmsys_ensemble.training.fit import Fitted, fit_lora
from lmsys_ensemble.training.hidden import STORED_FORMAT, HiddenStore
from lmsys_ensemble.training.job import Job, plan_job
from lmsys_ensemble.training.model import arithmetic, build_model
from lmsys_ensemble.training.output import begin, is_finished, last_step, result_folder, take_place
from lmsys_ensemble.training.processes import is_main, wait_for_main
from lmsys_ensemble.training.settings import TrainSettings
from lmsys_ensemble.training.watching import CURVES_FILE

logger = logging.getLogger(__name__)

MakeObjective = Callable[[Examples, Labelled], Objective]
"""Makes the loss from the examples (rows in both orders, where they are asked for) and the rows they were made of."""


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
        Where the adapter goes; it is made in ``checkpoints`` of this folder until it is whole, and then takes the place
        of one that was there.
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
    job = plan_job(settings, learn, held, folder, device)
    make_objective = make_objective or recipe_objective(job.settings, learn)
    with hardware.current_device(device):
        trained = Trained(folder, {}, nothing_held(job))
        if resume and is_finished(folder, job.run):
            say(f"{folder} is whole: nothing is trained")
            if is_main():
                take_place(folder)
                trained = measure_again(job)
            return trained
        if is_main():
            begin(folder, job.run, anew=not resume)
        if resume:
            step = last_step(folder)
            say(f"{folder}: training {'begins anew' if step is None else f'goes on from step {step}'}")
        fitted = _learn(job, make_objective, resume=resume, cache=cache, say=say)
        if is_main():
            trained = replace(finish(replace(job, folder=result_folder(folder)), fitted, say), folder=folder)
            take_place(folder)
    wait_for_main()
    return trained


def _learn(
    job: Job, make_objective: MakeObjective | None, *, resume: bool, cache: Path | None, say: Callable[[str], object]
) -> Fitted:
    """Load the base, train adapter and head, and save them."""
    settings, recipe, learn, held = job.settings, job.recipe, job.learn, job.held
    wrapped = build_model(settings, recipe, job.base, job.device)
    if settings.init_adapter is not None:
        load_first_stage(wrapped, settings)
    encoded, labels, rows = encode_both_orders(learn, job.encoder, recipe.task, settings.swap_augmentation)
    examples = Examples(encoded, labels, row_weights(learn, settings.data)[rows])
    unseen = None
    if len(held):
        unseen = Examples(job.encoder.encode(held.battles), held.labels, row_weights(held, settings.data))
    fitted = fit_lora(
        wrapped,
        recipe,
        settings,
        examples,
        held=unseen,
        objective=make_objective(examples, learn) if make_objective else None,
        store=_hidden_store(job, wrapped, cache, say) if cache is not None else None,
        folder=job.folder / CHECKPOINTS,
        resume=resume,
        curves=result_folder(job.folder) / CURVES_FILE,
    )
    if is_main():
        save_adapter(wrapped, result_folder(job.folder), settings.base_model)
    return fitted


def _hidden_store(job: Job, wrapped: Any, cache: Path, say: Callable[[str], object]) -> HiddenStore:
    """Return where hidden states of this base, layer and arithmetic are kept."""
    identity = {
        "base_sha256": job.run["base_sha256"],
        "first_layer": job.settings.lora.first_layer,
        "quantization": job.settings.quantization,
        "arithmetic": str(arithmetic(job.settings.autocast, job.device)),
        "stored_as": str(STORED_FORMAT),
        "soft_capping": job.recipe.soft_capping,
    }
    return HiddenStore(cache, identity, wrapped.get_base_model().config.get_text_config().hidden_size, say)
