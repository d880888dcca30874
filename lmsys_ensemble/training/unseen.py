"""Rows held out must be unseen: nothing that a run starts from, or learns from, may have learned from them.

Every training writes hashes of the rows that it learned from, see `lmsys_ensemble.modeling.learned_rows`. Where they
are there, a first stage (or a base model that is a merged one) that has seen rows held out is refused; where they are
not, and for teachers whose predictions do not say that they are out of fold, there is a warning with the cure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmsys_ensemble.bases.sources import locate_base
from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.data.tables import MAX_LISTED_FAULTS, read_table
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.learned_rows import LEARNED_FILE, SeenRowsWarning, read_learned_rows
from lmsys_ensemble.modeling.recipe import Recipe, read_recipe
from lmsys_ensemble.notices import warn
from lmsys_ensemble.training.inputs import FOLD, stage_of_fold
from lmsys_ensemble.training.out_of_fold import FOLD_COLUMN
from lmsys_ensemble.training.rows import Folds
from lmsys_ensemble.training.settings import TrainSettings

_CURE_OF_FOLDS = (
    "Train the first stage with the same data and folds, and name the stage of each fold: init_adapter: "
    f"FOLDER/fold-{FOLD}; or leave these rows out of one of the two"
)
_CURE = (
    "Hold out what the first stage held out (same data, data.holdout and seed), or leave these rows out of one of the "
    "two"
)


@dataclass(frozen=True)
class Origin:
    """What a run starts from: the setting that names it, its folder, and its recipe, if it has one."""

    setting: str
    folder: Path
    recipe: Recipe | None


def origins(settings: TrainSettings, base: Path | None) -> list[Origin]:
    """Return the first stage, where there is one, and the base model where it is a trained one that was merged."""
    found = []
    if base is not None and (recipe := read_recipe(base, verify=False)) is not None:
        found.append(Origin("base_model", base, recipe))
    if settings.init_adapter is not None:
        stage = Path(settings.init_adapter)
        found.append(Origin("init_adapter", stage, read_recipe(stage, verify=False)))
    return found


def check_unseen(settings: TrainSettings, held: Labelled, cure: str = _CURE) -> None:
    """Make sure that nothing a run starts from has learned from rows held out.

    Parameters
    ----------
    settings : TrainSettings
        The recipe; ``init_adapter`` is a folder.
    held : Labelled
        Rows held out; where there are none, nothing is checked.
    cure : str
        What the error advises.

    Raises
    ------
    ConfigError
        Names rows that have been learned from.

    Warns
    -----
    SeenRowsWarning
        If only prompts have been learned from, with other responses, or if it is not known what has been.
    """
    if not len(held):
        return
    for origin in origins(settings, locate_base(settings.base_model, settings.revision)):
        if origin.recipe is None:
            continue  # refused elsewhere: a first stage has a recipe
        learned = read_learned_rows(origin.folder, origin.recipe)
        if learned is None:
            warn(
                f"{origin.setting} {origin.folder} does not say which rows it has learned from (it has no "
                f"{LEARNED_FILE}). If rows held out are among them, their figures will be too good. {cure}",
                SeenRowsWarning,
            )
            continue
        rows, prompts = learned.find(held.battles)
        if rows.any():
            raise ConfigError(
                f"{origin.setting} {origin.folder} has learned from {rows.sum()} of {len(held)} rows held out: id "
                f"{_listed(held.battles.ids[rows].tolist())}. They would be scored by a model that has seen their "
                f"labels. {cure}"
            )
        if prompts.any():
            warn(
                f"{origin.setting} {origin.folder} has learned from the prompts of {prompts.sum()} of {len(held)} rows "
                f"held out, with other responses: id {_listed(held.battles.ids[prompts].tolist())}. Their figures may "
                f"be too good. {cure}",
                SeenRowsWarning,
            )


def check_folds_unseen(settings: TrainSettings, folds: Folds, chosen: Sequence[int]) -> None:
    """Do what `check_unseen` does for the rows of the folds that are to be trained, and ask what teachers have seen."""
    for stage, numbers in _stages(settings, chosen):
        held = folds.data.take(np.flatnonzero(np.isin(folds.fold_of, numbers)))
        check_unseen(stage, held, _CURE_OF_FOLDS)
    _check_teachers(settings)


def _stages(settings: TrainSettings, chosen: Sequence[int]) -> Iterator[tuple[TrainSettings, Sequence[int]]]:
    """Yield what folds start from, each with its folds."""
    if FOLD in (settings.init_adapter or ""):
        yield from ((stage_of_fold(settings, number), [number]) for number in chosen)
    else:
        yield settings, chosen


def _check_teachers(settings: TrainSettings) -> None:
    teachers = [] if settings.distillation is None else settings.distillation.teachers
    silent = [teacher.file for teacher in teachers if not teacher.unseen and not _is_out_of_fold(teacher.file)]
    if silent:
        warn(
            f"{', '.join(silent)}: no column {FOLD_COLUMN!r} says that these are out-of-fold predictions. A teacher "
            "that has learned from these rows is too sure of them, and passes on what it knows of those held out. Take "
            "the oof.parquet of a training with folds, or set unseen: true for a teacher that has seen none of them",
            SeenRowsWarning,
        )


def _is_out_of_fold(file: str) -> bool:
    table = read_table(file)
    return FOLD_COLUMN in table and table[FOLD_COLUMN].nunique() > 1


def _listed(ids: Sequence[object]) -> str:
    return ", ".join(map(repr, ids[:MAX_LISTED_FAULTS])) + (", …" if len(ids) > MAX_LISTED_FAULTS else "")
