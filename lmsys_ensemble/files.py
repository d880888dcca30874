"""Files: hashes, writes that are whole or not there, settings that are checked."""

import difflib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lmsys_ensemble.documents import parse_json, parse_yaml
from lmsys_ensemble.errors import ConfigError


class Settings(BaseModel):
    """Base of everything that is read from a configuration file: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
                faults.append(f"unknown key {where!r}{suggest(str(fault['loc'][-1]), _known_keys(kind, fault['loc']))}")
            else:
                faults.append(f"{where or 'settings'}: {fault['msg']}")
        raise ConfigError(f"{source}: {'; '.join(faults)}") from error


def suggest(name: str, known: Any) -> str:
    """Return " (did you mean ...?)" for a misspelt name, or " (known: ...)" where nothing comes close."""
    names = sorted(str(other) for other in known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(names)})" if names else ""


def _known_keys(kind: type[BaseModel], path: tuple[int | str, ...]) -> set[str]:
    for part in path[:-1]:
        field = kind.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return set()
        kind = inner
    return set(kind.model_fields)


def read_mapping(path: Path) -> Any:
    """Read a YAML or JSON file, within the limits of `lmsys_ensemble.documents`.

    Raises
    ------
    ConfigError
        If the file is not there or is neither, or is nested too deeply.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse_json(text, path) if path.suffix == ".json" else parse_yaml(text, path)


def read_object(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file that holds names and their values.

    Raises
    ------
    ConfigError
        As `read_mapping`, or if it holds something else.
    """
    values = read_mapping(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, expected names with their values")
    return values


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the process is killed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, values: Any) -> None:
    """Write `values` as indented JSON, atomically; lone surrogates, which UTF-8 cannot hold, as escapes."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode(errors="backslashreplace"))  # JSON spells them so, too


def defuse(text: str) -> str:
    """Return text that a spreadsheet shows instead of running it as a formula.

    For files that people open, never for ids that are matched by. A leading apostrophe, as OWASP advises against
    CSV injection.

    >>> defuse("=HYPERLINK(A1)"), defuse("2 + 2 = 4")
    ("'=HYPERLINK(A1)", '2 + 2 = 4')
    """
    return f"'{text}" if text.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
