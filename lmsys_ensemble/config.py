"""Configuration files of ensembles: which scorers, which blender."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.errors import CheckError, ConfigError, EnsembleError
from lmsys_ensemble.files import read_mapping, write_atomically
from lmsys_ensemble.schema import TASKS, THREE_WAY, Task
from lmsys_ensemble.scorers.base import Scorer
from lmsys_ensemble.scorers.registry import build_scorer, scorer_type
from lmsys_ensemble.settings import Settings, parse_settings, suggest

CONFIG_FILE = "ensemble.yaml"
SCORER_FILE = "scorer.yaml"
BLENDER_FILE = "blender.json"
DEFAULT_CONFIG = "default"


class EnsembleConfig(Settings):
    """Content of an ensemble's YAML file.

    ``scorers`` holds mappings (``type`` and the settings of that scorer) or paths of ``scorer.yaml`` files;
    ``blender`` a mapping of `Blender` arguments or the path of a saved blender. Paths are relative to the file.
    """

    version: Literal[1] = 1
    task: str = THREE_WAY.name
    scorers: list[dict[str, Any] | str]
    blender: dict[str, Any] | str = Field(default={})


def models_folder() -> Path:
    """Return the folder of the models and ensembles that come with the library."""
    package = Path(__file__).parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def bundled_config(name: str = DEFAULT_CONFIG) -> Path:
    """Return the path of an ensemble that comes with the library, whatever lies in the working directory.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    path = models_folder() / f"{name}.yaml"
    if name != Path(name).name or not path.is_file():
        raise ConfigError(f"no ensemble called {name!r} comes with the library{suggest(name, _bundled_names())}")
    return path


def find_config(config: str | Path) -> Path:
    """Return the path of a configuration: a file, a bundled name, or a folder of an ensemble or of a trained adapter.

    Only a bare name (``fast``) stands for what comes with the library. What looks like a path must be there: a
    misspelt one never runs other models than those that were meant.

    Raises
    ------
    ConfigError
        If there is none of these.
    """
    path = Path(config)
    if path.is_file():
        return path
    for name in (CONFIG_FILE, SCORER_FILE):
        if (path / name).is_file():
            return path / name
    names = _bundled_names()
    if str(config) in names:
        return bundled_config(str(config))
    if path.is_dir():
        raise ConfigError(
            f"the folder {str(config)!r} holds neither {CONFIG_FILE} nor {SCORER_FILE}; name a YAML file, a saved "
            "ensemble, or a trained adapter"
        )
    if str(config) != path.stem:
        meant = f"; the bundled ensemble is called {path.stem!r}, without a suffix" if path.stem in names else ""
        raise ConfigError(f"there is no configuration file {str(config)!r}{meant}")
    raise ConfigError(f"there is no configuration {str(config)!r}{suggest(str(config), names)}")


def _bundled_names() -> list[str]:
    return sorted(file.stem for file in models_folder().glob("*.yaml"))


def read_config(config: str | Path) -> tuple[list[Scorer], Blender, Task]:
    """Make the scorers and the blender that a configuration file describes; nothing is loaded.

    Raises
    ------
    ConfigError
        If the file is not there, or a setting is wrong; names the file and the setting. If several scorers, or a
        scorer and the blender, are wrong, `CheckError` lists them.
    """
    path = find_config(config)
    values = read_mapping(path)
    if isinstance(values, dict) and "scorers" not in values:
        if "base_model" in values:
            raise ConfigError(
                f"{path} is a recipe of training, not an ensemble: give it to lmsys-ensemble train, and name here the "
                "folder that training writes"
            )
        if "type" in values:  # what training wrote, or a file of one scorer
            scorer = _scorer(values, path)
            return [scorer], Blender(), scorer.task
    settings = parse_settings(EnsembleConfig, values, path)
    if settings.task not in TASKS:
        raise ConfigError(f"{path}: unknown task {settings.task!r}{suggest(settings.task, TASKS)}")
    if not settings.scorers:
        raise ConfigError(f"{path}: an ensemble needs at least one scorer")
    errors: list[EnsembleError] = []
    scorers: list[Scorer] = []
    for entry in settings.scorers:
        try:
            scorers.append(_scorer(entry, path))
        except EnsembleError as error:
            errors.append(error)
    blender = Blender()
    try:
        blender = _blender(settings.blender, path)
    except EnsembleError as error:
        errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise CheckError([str(error) for error in errors])
    return scorers, blender, TASKS[settings.task]


def write_config(folder: Path, scorers: Sequence[Scorer], blender: Blender, task: Task) -> None:
    """Write an ensemble as a folder that `read_config` takes: ``ensemble.yaml`` and ``blender.json``.

    Raises
    ------
    RegistryError
        If a scorer's class is not registered under a name.
    """
    entries: list[dict[str, Any]] = []
    for scorer in scorers:
        entry: dict[str, Any] = {"type": scorer_type(scorer)}
        for name, value in scorer.settings().items():
            if value is not None:
                is_path = name in scorer.path_settings and Path(str(value)).exists()
                entry[name] = str(Path(str(value)).resolve()) if is_path else value
        entries.append(entry)
    content = {"version": 1, "task": task.name, "scorers": entries, "blender": BLENDER_FILE}
    folder.mkdir(parents=True, exist_ok=True)
    blender.save(folder / BLENDER_FILE)
    write_atomically(folder / CONFIG_FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def check_parts(scorers: object, blender: object, task: object, devices: object) -> list[Scorer]:
    """Check the types of an ensemble's parts, and return its scorers.

    Raises
    ------
    ConfigError
        If a part has the wrong type; says what was got and what to write instead.
    """
    checked = _check_scorers(scorers)
    if blender is not None and not isinstance(blender, Blender):
        cure = f"; write Blender(method={blender!r})" if isinstance(blender, str) else ""
        raise ConfigError(f"blender must be a Blender, got {_described(blender)}{cure}")
    if not isinstance(task, Task):
        raise ConfigError(f"task must be a Task (lmsys_ensemble.schema.TASKS holds them), got {_described(task)}")
    if isinstance(devices, str):
        raise ConfigError(f"devices must be a list of names; write devices=[{devices!r}]")
    if devices is not None and not (isinstance(devices, Sequence) and all(isinstance(name, str) for name in devices)):
        raise ConfigError(f"devices must be a list of names such as 'cuda:0' and 'cpu', got {devices!r}")
    return checked


def _check_scorers(scorers: object) -> list[Scorer]:
    if isinstance(scorers, str | Path):
        raise ConfigError(
            f"an ensemble is made of a list of scorers, got {str(scorers)!r}; for a configuration by name or path "
            f"write Ensemble.from_config({str(scorers)!r})"
        )
    if isinstance(scorers, Scorer):
        raise ConfigError(f"an ensemble is made of a list of scorers, got one scorer; write [{scorers.name}]")
    if isinstance(scorers, Mapping) or not isinstance(scorers, Iterable):
        raise ConfigError(f"an ensemble is made of a list of scorers, got {_described(scorers)}")
    checked: list[Scorer] = []
    for position, scorer in enumerate(scorers):
        if not isinstance(scorer, Scorer):
            raise ConfigError(f"scorers[{position}] must be a Scorer, got {_described(scorer)}{_cure(scorer)}")
        checked.append(scorer)
    return checked


def _cure(entry: object) -> str:
    if isinstance(entry, type) and issubclass(entry, Scorer):
        return f"; write {entry.__name__}(...) with its model"
    if isinstance(entry, str | Path):
        return "; write GemmaScorer(model), LlamaScorer(model) or ClassifierScorer(model), or use Ensemble.from_config"
    if isinstance(entry, Mapping):
        return "; entries of a configuration are read by Ensemble.from_config"
    return ""


def _described(value: object) -> str:
    if value is None:
        return "None"
    return f"the class {value.__name__}" if isinstance(value, type) else f"{value!r:.80} ({type(value).__name__})"


def _scorer(entry: dict[str, Any] | str, path: Path) -> Scorer:
    source, folder = path, path.parent
    if isinstance(entry, str):
        source = folder / entry
        if source.is_dir():
            source = source / SCORER_FILE
        folder = source.parent
        entry = read_mapping(source)
    if not isinstance(entry, dict):
        raise ConfigError(f"{source}: a scorer must be a mapping with a type, got {type(entry).__name__}")
    try:
        return build_scorer(entry, folder)
    except ConfigError as error:
        raise type(error)(f"{source}: {error}") from error


def _blender(entry: dict[str, Any] | str, path: Path) -> Blender:
    if isinstance(entry, str):
        return Blender.load(path.parent / entry)
    known = set(inspect.signature(Blender).parameters)
    for name in entry:
        if name not in known:
            raise ConfigError(f"{path}: the blender has no setting {name!r}{suggest(name, known)}")
    return Blender(**entry)
