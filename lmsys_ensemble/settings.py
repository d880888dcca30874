"""Settings that files hold: checked against declared fields, with errors that name every wrong key and its cure."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from lmsys_ensemble.errors import ConfigError


class Settings(BaseModel):
    """Base class of settings that files hold: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    called_elsewhere: ClassVar[Mapping[str, str]] = {}
    """What other libraries call a setting, and what to write here instead; errors of unknown keys say it."""


SettingsType = TypeVar("SettingsType", bound=Settings)


def parse_settings(kind: type[SettingsType], values: Any, source: str | Path) -> SettingsType:
    """Validate settings.

    Parameters
    ----------
    kind : type
        Subclass of `Settings`.
    values : mapping
        What was read.
    source : str or Path
        Where it was read from, for the error.

    Raises
    ------
    ConfigError
        Lists every wrong key with what was expected; misspelt keys get a suggestion.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: expected a mapping of settings, got {type(values).__name__}")
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            where = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "extra_forbidden":
                faults.append(f"unknown key {where!r}{_instead(kind, fault['loc'])}")
            else:
                faults.append(f"{where or 'settings'}: {fault['msg']}{_got(fault)}")
        raise ConfigError(f"{source}: {'; '.join(faults)}") from error


def suggest(name: str, known: Any) -> str:
    """Return " (did you mean ...?)" for a misspelt name, or " (known: ...)" where nothing comes close."""
    names = sorted(str(other) for other in known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(names)})" if names else ""


def _got(fault: Any) -> str:
    """Return what stood there, where that is a single value and the message does not say it."""
    value = fault["input"]
    if fault["type"] in {"missing", "value_error", "assertion_error"} or isinstance(value, list | tuple | Mapping):
        return ""
    return f", got {value!r:.60}"


def _instead(kind: type[Settings], path: tuple[int | str, ...]) -> str:
    """Return what to write instead of an unknown key: where it belongs, what it is called here, what it resembles."""
    key = str(path[-1])
    if key in kind.called_elsewhere:
        return f" (here: {kind.called_elsewhere[key]})"
    section: type[BaseModel] | None = kind
    for part in path[:-1]:
        section = _section(section, str(part)) if section is not None else None
    near = suggest(key, section.model_fields if section is not None else ())
    if "did you mean" in near:
        return near
    belongs = [".".join(names) for names in _places_of(kind, key)]
    return f" (did you mean {' or '.join(belongs)}?)" if belongs else near


def _section(kind: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the settings that a key of settings holds, where it holds any."""
    field = kind.model_fields.get(name)
    for inner in (field.annotation, *get_args(field.annotation)) if field is not None else ():
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return None


def _places_of(kind: type[BaseModel], key: str, within: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all keys of that name, in sections and their sections."""
    for name in kind.model_fields:
        if name == key:
            yield (*within, name)
        section = _section(kind, name)
        if section is not None:
            yield from _places_of(section, key, (*within, name))
