"""What a training will be, without training: everything is checked, and counted."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmsys_ensemble.bases.sources import locate_base
from lmsys_ensemble.data.corpus import Labelled, rows_by_source
from lmsys_ensemble.data.frames import TableLike
from lmsys_ensemble.training.dataset import encode_both_orders
from lmsys_ensemble.training.job import Job, plan_job
from lmsys_ensemble.training.model import arithmetic
from lmsys_ensemble.training.rows import Cleaning, divide
from lmsys_ensemble.training.run import check_rows, check_run, open_recipe, read_rows
from lmsys_ensemble.training.settings import TrainSettings
from lmsys_ensemble.training.unseen import check_unseen

logger = logging.getLogger(__name__)

_BYTES_PER_STATE = 2
"""Hidden states are kept in bfloat16."""


def preview(
    recipe: str | Path | TrainSettings,
    df: TableLike | None = None,
    *,
    data_folder: str | Path | None = None,
    device: str = "auto",
    say: Callable[[str], object] = logger.info,
) -> dict[str, Any]:
    """Check all that can be known to be wrong before weights are loaded, and count what there is to do.

    Nothing is fetched and nothing is written. Parameters and errors are those of `lmsys_ensemble.training.train`.

    Returns
    -------
    dict
        Rows (``learn``, ``held``, each by source), ``labels`` (their mean, by class) and ``device``; and, where the
        base model is there already, ``sequences``, ``tokens`` (mean, longest, total), ``truncated`` sequences,
        ``steps_per_epoch``, ``steps``, ``checkpoint_steps``, ``arithmetic`` and ``hidden_state_bytes`` on disk.
    """
    settings = open_recipe(recipe, data_folder)
    device = check_run(settings, device)
    skipped: dict[str, dict[object, str]] = {}
    divided = divide(read_rows(recipe, settings, df, data_folder, skipped), settings)
    check_rows(settings, divided.learn, divided.held)
    check_unseen(settings, divided.held)
    Cleaning(settings.data.hygiene, divided.report, skipped).say(say)
    told: dict[str, Any] = {
        "learn": rows_by_source(divided.learn),
        "held": rows_by_source(divided.held),
        "labels": dict(zip(settings.task.classes, divided.learn.labels.mean(axis=0).round(4).tolist(), strict=True)),
        "device": device,
    }
    if locate_base(settings.base_model, settings.revision) is None:
        return told
    return {**told, **_counted(plan_job(settings, divided.learn, divided.held, Path(), device), divided.learn)}


def _counted(job: Job, learn: Labelled) -> dict[str, Any]:
    settings = job.settings
    encoded, _, _ = encode_both_orders(learn, job.encoder, settings.task, settings.swap_augmentation)
    per_epoch = math.ceil(len(encoded) / settings.optimizer.rows_per_step)
    every = math.ceil(per_epoch / max(settings.evaluation.per_epoch, 1))
    chooses = settings.evaluation.keeps_best and len(job.held) > 0
    kept = settings.lora.first_layer > 0 and settings.optimizer.epochs > 0
    width = job.recipe.base_model.hidden_size or 0
    total = int(encoded.lengths.sum())
    return {
        "sequences": len(encoded),
        "tokens": {
            "mean": round(float(encoded.lengths.mean()), 1), "longest": int(encoded.lengths.max()), "total": total,
        },
        "truncated": int(encoded.retention["truncated"].sum()),
        "steps_per_epoch": per_epoch,
        "steps": per_epoch * settings.optimizer.epochs,
        "checkpoint_steps": every if chooses else settings.checkpoint_steps or every,
        "arithmetic": str(arithmetic(settings.autocast, job.device)).removeprefix("torch."),
        "hidden_state_bytes": total * width * _BYTES_PER_STATE if kept else 0,
    }  # fmt: skip
