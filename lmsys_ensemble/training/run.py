"""One training run, from a recipe to a folder."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lmsys_ensemble.bases.sources import locate_base
from lmsys_ensemble.cache import cache_folder
from lmsys_ensemble.data.corpus import Labelled, as_labelled, read_labelled
from lmsys_ensemble.data.frames import TableLike
from lmsys_ensemble.encoding.templates import get_template
from lmsys_ensemble.errors import ConfigError, InputError, MissingDependencyError
from lmsys_ensemble.files import check_new_folder
from lmsys_ensemble.flags import spell
from lmsys_ensemble.training.adapter import train_adapter
from lmsys_ensemble.training.base_checks import check_type
from lmsys_ensemble.training.examples import class_weights, row_weights
from lmsys_ensemble.training.inputs import FOLD, locate_inputs
from lmsys_ensemble.training.locks import reserved_output
from lmsys_ensemble.training.output import check_output, says_how_to_go_on
from lmsys_ensemble.training.processes import is_main, own_device
from lmsys_ensemble.training.rows import Cleaning, divide
from lmsys_ensemble.training.settings import TrainSettings, data_files, read_train_settings
from lmsys_ensemble.training.unseen import check_unseen

logger = logging.getLogger(__name__)


def train(
    recipe: str | Path | TrainSettings,
    df: TableLike | None = None,
    *,
    output: str | Path,
    data_folder: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    cache: str | Path | None = None,
    say: Callable[[str], object] = logger.info,
) -> dict[str, Any]:
    """Train a LoRA adapter with its head and write all that inference needs.

    Parameters
    ----------
    recipe : str, Path or TrainSettings
        YAML file, or its content; see `lmsys_ensemble.training.settings.TrainSettings`.
    df : DataFrame, optional
        Labelled battles, instead of the recipe's data files; a column ``source`` says where rows came from, and
        ``group`` which of them belong together (else those of one prompt).
    output : str or Path
        Folder that receives adapter, head, ``recipe.json``, ``golden.json``, ``scorer.yaml``, curves, a model card and
        ``learned_rows.safetensors`` (hashes of the rows that were learned from), and ``cleaning.json`` where rows were
        cleaned.
    data_folder : str or Path, optional
        Where the recipe's data files lie; by default beside the recipe.
    device : str
        ``cpu``, ``cuda:0`` and so on, or ``auto``.
    overwrite : bool
        Whether a folder that is not empty may be written to.
    resume : bool
        Go on from the last checkpoint in `output`, if there is one, to the same weights as without an interruption.
    cache : str or Path, optional
        Folder of hidden states that enter the first trained layer, which later runs use again; by default
        ``hidden-states`` in `lmsys_ensemble.cache.cache_folder`.
    say : callable
        Told in words what is being done.

    Returns
    -------
    dict
        Held-out figures, as ``recipe.json`` states them.

    Raises
    ------
    ConfigError, InputError
        If the recipe or the data cannot be used, or the first stage has learned from rows held out; before anything is
        loaded.

    Warns
    -----
    SeenRowsWarning
        If the first stage may have learned from rows held out.
    """
    folder, kept = Path(output), Path(cache) if cache else default_cache()
    if is_main():
        check_output(folder, overwrite=overwrite, resume=resume)
        check_new_folder(kept, spell("cache=").rstrip("="), overwrite=True, cure="name a folder")
    settings = open_recipe(recipe, data_folder)
    if FOLD in (settings.init_adapter or ""):
        raise ConfigError(f"init_adapter names {FOLD}, and there are no folds: name one folder, or give --folds N")
    device = check_run(settings, device)
    skipped: dict[str, dict[object, str]] = {}
    data = read_rows(recipe, settings, df, data_folder, skipped)
    divided = divide(data, settings)
    learn, held = divided.learn, divided.held
    check_rows(settings, learn, held)
    check_unseen(settings, held)
    tell = say if is_main() else logger.debug
    cleaning = Cleaning(settings.data.hygiene, divided.report, skipped)
    cleaning.say(tell)
    tell(f"{len(learn)} rows to learn from, {len(held)} held out")
    with reserved_output(folder) if is_main() else nullcontext(), says_how_to_go_on(folder, spell("resume=True")):
        if is_main():
            check_output(folder, overwrite=overwrite, resume=resume)
        trained = train_adapter(
            settings, learn, held, folder=folder, device=device, resume=resume, cache=kept, say=tell
        )  # fmt: skip
        if is_main():
            cleaning.write(folder)
    return trained.figures


def open_recipe(recipe: str | Path | TrainSettings, data_folder: str | Path | None) -> TrainSettings:
    """Return a recipe's settings, read where it is a path; they name teachers and a first stage by where they are."""
    settings = recipe if isinstance(recipe, TrainSettings) else read_train_settings(Path(recipe))
    beside = Path() if isinstance(recipe, TrainSettings) else Path(recipe).parent
    return locate_inputs(settings, beside, Path(data_folder) if data_folder else None)


def read_rows(
    recipe: str | Path | TrainSettings,
    settings: TrainSettings,
    df: TableLike | None,
    data_folder: str | Path | None,
    skipped: dict[str, dict[object, str]],
) -> Labelled:
    """Return the labelled rows of a table, or else of the recipe's data files; `skipped` as for `read_labelled`."""
    if df is not None:
        return as_labelled(df, settings.task)
    beside = Path() if isinstance(recipe, TrainSettings) else Path(recipe).parent
    files = data_files(settings, beside, Path(data_folder) if data_folder else None)
    return read_labelled(files, settings.task, skipped)


def default_cache() -> Path:
    """Return the folder of hidden states where no other is given."""
    return cache_folder() / "hidden-states"


def check_run(settings: TrainSettings, device: str) -> str:
    """Check the settings that can be checked without data and weights, and return the device.

    Raises
    ------
    ConfigError, DeviceError, MissingDependencyError
        Names the setting, and the cure.
    """
    get_template(settings.template)
    base = locate_base(settings.base_model, settings.revision)
    if base is not None:
        check_type(settings, base)
    chosen = own_device(device)
    if settings.optimizer.name == "paged_adamw_8bit" and chosen == "cpu":
        raise ConfigError(
            "optimizer.name is paged_adamw_8bit, which pages between a GPU and the host; on the CPU use adamw_8bit"
        )
    if "tensorboard" in settings.report_to and not (find_spec("tensorboard") or find_spec("tensorboardX")):
        raise MissingDependencyError("report_to: tensorboard needs the package tensorboard: pip install tensorboard")
    return chosen


def check_rows(settings: TrainSettings, learn: Labelled, held: Labelled) -> None:
    """Raise `InputError` or `ConfigError` if there is nothing to learn from, or nothing to choose by."""
    if not len(learn):
        raise InputError("no rows to learn from are left; look at data.rows and data.holdout")
    weights = row_weights(learn, settings.data)
    if not (weights * (learn.labels @ class_weights(settings.data.class_weights, settings.task))).any():
        raise InputError(
            f"all {len(learn)} rows to learn from have weight 0; look at data.weights and data.class_weights, or leave "
            "sources out with data.rows"
        )
    if settings.evaluation.keeps_best and not len(held):
        raise ConfigError(
            "evaluation.patience and keep_best choose by rows held out, and there are none; set data.holdout"
        )
