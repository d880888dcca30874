"""Scorers by name. Built-in and third-party scorers register the same way: an entry point that names a class.

::

    [options.entry_points]
    lmsys_ensemble.scorers =
        mine = my_package.my_module:MyScorer

Listing names imports none of them. Scorers that fail on purpose have a group of their own; files that name one are
refused unless the environment variable ``LMSYS_ENSEMBLE_FAULTS`` is 1.
"""

import ast
import inspect
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from lmsys_ensemble.errors import ConfigError, MissingDependencyError, RegistryError
from lmsys_ensemble.scorers.base import Scorer
from lmsys_ensemble.settings import suggest

GROUP = "lmsys_ensemble.scorers"

FAULTY_GROUP = "lmsys_ensemble.scorers.faulty"
"""Entry points of scorers that fail on purpose; one of them can kill the process."""

FAULTS_VARIABLE = "LMSYS_ENSEMBLE_FAULTS"
"""Environment variable that must be 1 before names of `FAULTY_GROUP` may be used."""


def _registered() -> dict[str, EntryPoint]:
    points = set(entry_points(group=GROUP))
    if os.environ.get(FAULTS_VARIABLE) == "1":
        points |= set(entry_points(group=FAULTY_GROUP))
    twice = [name for name, count in Counter(point.name for point in points).items() if count > 1]
    if twice:
        owners = sorted(f"{point.name} = {point.value}" for point in points if point.name in twice)
        raise RegistryError(f"scorer names are registered more than once: {'; '.join(owners)}. Uninstall one of them")
    return {point.name: point for point in points}


def _not_asked_for(name: str) -> RegistryError:
    return RegistryError(
        f"scorer type {name!r} fails on purpose and can kill the process; files may name it only where the environment "
        f"variable {FAULTS_VARIABLE}=1 is set, as tests do"
    )


def scorer_names() -> list[str]:
    """Return the names of all registered scorers, sorted.

    Raises
    ------
    RegistryError
        If two packages register the same name.
    """
    return sorted(_registered())


@dataclass(frozen=True)
class ScorerEntry:
    """A registered scorer, as far as it can be told without importing it.

    Attributes
    ----------
    name : str
        What files call it: ``type: NAME``.
    path : str
        Module and class.
    package : str
        The distribution that registers it, with its version.
    summary : str
        First line of the class's docstring; empty where the class is not written down in that module.
    """

    name: str
    path: str
    package: str
    summary: str


def list_scorers() -> list[ScorerEntry]:
    """Return all registered scorers, sorted by name. None is imported: summaries are read from the source files.

    Raises
    ------
    RegistryError
        If two packages register the same name.
    """
    return [
        ScorerEntry(name, point.value, _package_of(point), _summary_of(point))
        for name, point in sorted(_registered().items())
    ]


def _package_of(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else ""


def _summary_of(point: EntryPoint) -> str:
    """Return the first line of a class's docstring, out of its source file."""
    top, *rest = point.module.split(".")
    found = find_spec(top)  # of a package, this imports nothing
    if found is None or found.origin is None:
        return ""
    source = Path(found.origin) if not rest else Path(found.origin).parent.joinpath(*rest).with_suffix(".py")
    if not source.is_file():
        source = source.with_suffix("") / "__init__.py"
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == point.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def get_scorer_class(name: str) -> type[Scorer]:
    """Import and return a registered scorer class.

    Raises
    ------
    RegistryError
        If the name is unknown or registered twice, is no scorer, or is that of a scorer that fails on purpose and was
        not asked for.
    MissingDependencyError
        If the class needs a package that is not installed.
    """
    registered = _registered()
    if not registered:
        raise RegistryError(
            f"there is no scorer type {name!r}, nor any other: lmsys_ensemble runs from its sources and has not been "
            "installed, which registers them; install it (pip install --editable .)"
        )
    if name not in registered:
        if name in entry_points(group=FAULTY_GROUP).names:
            raise _not_asked_for(name)
        raise RegistryError(f"there is no scorer type {name!r}{suggest(name, registered)}")
    try:
        kind = registered[name].load()
    except ImportError as error:
        raise MissingDependencyError(f"scorer type {name!r} needs a package that is not installed: {error}") from error
    except AttributeError as error:
        raise RegistryError(f"scorer type {name!r} ({registered[name].value}) cannot be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Scorer)):
        raise RegistryError(f"scorer type {name!r} ({registered[name].value}) is no subclass of Scorer")
    return kind


def build_scorer(settings: Mapping[str, Any], folder: Path) -> Scorer:
    """Make a scorer from a configuration file's settings.

    Parameters
    ----------
    settings : mapping
        ``type`` and the arguments of the class's constructor.
    folder : Path
        Folder of the configuration file, from which relative paths are taken.

    Raises
    ------
    ConfigError
        If a setting is unknown or missing.
    """
    values = dict(settings)
    name = values.pop("type", None)
    if not isinstance(name, str):
        raise ConfigError(f"a scorer needs a type: one of {', '.join(scorer_names())}")
    kind = get_scorer_class(name)
    parameters = inspect.signature(kind).parameters
    for key in values:
        if key not in parameters:
            raise ConfigError(f"scorer type {name!r} has no setting {key!r}{suggest(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in values:
            raise ConfigError(f"scorer type {name!r} needs the setting {key!r}")
    _check_types(name, kind, values)
    for key in kind.path_settings:
        value = values.get(key)
        if isinstance(value, str) and (folder / value).exists():
            values[key] = str((folder / value).resolve())
    return kind(**values)


def _check_types(name: str, kind: type[Scorer], values: Mapping[str, Any]) -> None:
    """Compare settings with the annotations of the constructor; what is not annotated may be anything."""
    try:
        hints = get_type_hints(kind.__init__)
    except NameError:  # names that only a type checker imports
        return
    for key, value in values.items():
        try:
            adapter = TypeAdapter(hints.get(key, Any), config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:
            continue
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            wanted = inspect.formatannotation(hints[key])
            raise ConfigError(f"scorer type {name!r}: setting {key!r} must be {wanted}, got {value!r:.60}") from error


def scorer_type(scorer: Scorer) -> str:
    """Return the name that a scorer's class is registered under.

    Raises
    ------
    RegistryError
        If it is not registered; such a scorer works, but cannot be named in a configuration file.
    """
    value = f"{type(scorer).__module__}:{type(scorer).__qualname__}"
    for name, point in _registered().items():
        if point.value == value:
            return name
    for point in entry_points(group=FAULTY_GROUP):
        if point.value == value:
            raise _not_asked_for(point.name)
    raise RegistryError(f"{value} is not registered; add an entry point in the group {GROUP!r} to save it by name")
