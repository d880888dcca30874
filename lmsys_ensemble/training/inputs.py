"""What a run reads beside its data: teachers' files and a first stage; where they are, and their hashes."""

import os
from pathlib import Path
from typing import Any

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import sha256_of
from lmsys_ensemble.modeling.digests import ADAPTER_FILES
from lmsys_ensemble.training.settings import TrainSettings

FOLD = "{fold}"
"""Stands for a fold's number in ``init_adapter``: every fold then starts from a first stage of its own."""


def locate_inputs(settings: TrainSettings, recipe_folder: Path, data_folder: Path | None = None) -> TrainSettings:
    """Return settings that name teachers' files and a first stage by where they are.

    Parameters
    ----------
    settings : TrainSettings
        As they were read.
    recipe_folder : Path
        Where the recipe lies, and the first stage.
    data_folder : Path, optional
        Where the data files lie, and the teachers'; by default beside the recipe.

    Raises
    ------
    ConfigError
        If one is not there.
    """
    changes: dict[str, Any] = {}
    if settings.distillation is not None:
        folder = data_folder or recipe_folder
        teachers = settings.distillation.teachers
        paths = [folder / os.path.expandvars(teacher.file) for teacher in teachers]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise ConfigError(
                f"teachers' files are not there: {', '.join(missing)}; they lie beside the data, whose folder is told "
                "with --data FOLDER"
            )
        changes["distillation"] = _with_files(settings, [str(path) for path in paths])
    if settings.init_adapter is not None:
        stage = recipe_folder / os.path.expandvars(settings.init_adapter)
        if FOLD not in settings.init_adapter:
            _check_stage(stage)
        changes["init_adapter"] = str(stage)
    return settings.model_copy(update=changes)


def stage_of_fold(settings: TrainSettings, fold: int) -> TrainSettings:
    """Return settings that start from the first stage of a fold, where the recipe names one for each.

    Raises
    ------
    ConfigError
        If it is not there.
    """
    if FOLD not in (settings.init_adapter or ""):
        return settings
    stage = str(settings.init_adapter).replace(FOLD, str(fold))
    _check_stage(Path(stage))
    return settings.model_copy(update={"init_adapter": stage})


def _check_stage(stage: Path) -> None:
    if not stage.is_dir():
        raise ConfigError(
            f"init_adapter: there is no folder {stage}; name the folder that an earlier training wrote, relative to "
            "the recipe"
        )


def without_paths(settings: TrainSettings) -> TrainSettings:
    """Return settings as they are passed on: with names instead of paths of this machine."""
    files = [_without_folder(file) for file in settings.data.files]
    changes: dict[str, Any] = {}
    if files != settings.data.files:
        changes["data"] = settings.data.model_copy(update={"files": files})
    if settings.distillation is not None:
        paths = [Path(teacher.file) for teacher in settings.distillation.teachers]
        names = [path.name for path in paths]
        changes["distillation"] = _with_files(
            settings,
            [
                path.name if names.count(path.name) == 1 else f"{path.resolve().parent.name}/{path.name}"
                for path in paths
            ],
        )
    if settings.init_adapter is not None:
        stage = Path(settings.init_adapter).resolve()
        changes["init_adapter"] = f"{stage.parent.name}/{stage.name}" if FOLD in stage.name else stage.name
    return settings.model_copy(update=changes)


def describe_inputs(settings: TrainSettings) -> dict[str, Any]:
    """Return the hashes of teachers' files and of a first stage's weights; empty where a recipe has neither.

    Of first stages that are one per fold, only the fold that starts from one knows its hash.
    """
    found: dict[str, Any] = {}
    if settings.distillation is not None:
        found["teachers_sha256"] = [sha256_of(teacher.file) for teacher in settings.distillation.teachers]
    if settings.init_adapter is not None and FOLD not in settings.init_adapter:
        folder = Path(settings.init_adapter)
        found["init_adapter_sha256"] = {
            name: sha256_of(folder / name) for name in ADAPTER_FILES if (folder / name).is_file()
        }
    return found


def _with_files(settings: TrainSettings, files: list[str]) -> Any:
    distillation = settings.distillation
    if distillation is None:
        return None
    teachers = [
        teacher.model_copy(update={"file": file}) for teacher, file in zip(distillation.teachers, files, strict=True)
    ]
    return distillation.model_copy(update={"teachers": teachers})


def _without_folder(file: str) -> str:
    """Return an entry of ``data.files`` without the folder, where that is a place on this machine."""
    source, separator, path = ("", "", file) if Path(file).is_absolute() else file.partition("=")
    if not Path(path or source).is_absolute():
        return file
    return f"{source}{separator}{Path(path).name}"
