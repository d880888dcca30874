"""Options as fields of dataclasses: a field states the name, the type, the default and the help, once.

From it come the flag of the command line (``time_budget_s`` is ``--time-budget SECONDS``), the choices (of a
``Literal``), the value that is read, and the name that errors use.
"""

import argparse
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_KEY = "flag"

Options = TypeVar("Options")


@dataclass(frozen=True)
class _Flag:
    help: str
    metavar: str | None
    is_positional: bool


def flag(help: str, metavar: str | None = None) -> Mapping[str, Any]:
    """Return the metadata of a field that the command line takes as a flag."""
    return {_KEY: _Flag(help, metavar, is_positional=False)}


def positional(help: str, metavar: str | None = None) -> Mapping[str, Any]:
    """Return the metadata of a field that the command line takes by its position."""
    return {_KEY: _Flag(help, metavar, is_positional=True)}


def flag_name(option: str) -> str:
    """Return the flag of an option; its unit is left to the metavar.

    >>> flag_name("run_dir"), flag_name("time_budget_s")
    ('--run-dir', '--time-budget')
    """
    return f"--{option.removesuffix('_s').replace('_', '-')}"


def add_flags(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Add what the fields of a dataclass declare; a field that is a dataclass itself adds its own."""
    for field, hint in _fields(kind):
        if is_dataclass(hint) and isinstance(hint, type):
            add_flags(parser, hint)
        elif _KEY in field.metadata:
            _add_flag(parser, field, hint)


def read_flags(kind: type[Options], arguments: argparse.Namespace) -> Options:
    """Return the dataclass that parsed arguments describe."""
    values: dict[str, Any] = {}
    for field, hint in _fields(kind):
        if is_dataclass(hint) and isinstance(hint, type):
            values[field.name] = read_flags(hint, arguments)
        elif _KEY in field.metadata:
            value = getattr(arguments, field.name)
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def seconds(text: str) -> float:
    """Return a number of seconds, or raise what `argparse` reports."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of seconds such as 3600, got {text!r}") from None


def _fields(kind: type[Any]) -> Iterator[tuple["Field[Any]", Any]]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        yield field, _without_none(hints[field.name])


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return str if set(kinds) <= {str, Path} else kinds[0]


def _add_flag(parser: argparse.ArgumentParser, field: "Field[Any]", hint: Any) -> None:
    declared: _Flag = field.metadata[_KEY]
    settings: dict[str, Any] = {"help": declared.help or None}
    is_required = field.default is MISSING
    if hint is bool:
        settings["action"] = "store_true"
    else:
        settings["metavar"] = declared.metavar
        if get_origin(hint) is tuple:
            settings["nargs"] = "*" if declared.is_positional and not is_required else "+"
            hint = get_args(hint)[0]
        if get_origin(hint) is Literal:
            settings["choices"] = list(get_args(hint))
        elif hint is not str:
            settings["type"] = seconds if field.name.endswith("_s") else hint
    if not is_required:
        settings["default"] = field.default
    if declared.is_positional:
        parser.add_argument(field.name, **settings)
    else:
        parser.add_argument(flag_name(field.name), dest=field.name, required=is_required, **settings)


_lock = threading.Lock()
_n_commands = 0


@contextmanager
def spelled_as_flags() -> Iterator[None]:
    """Let errors name options as the command line does, in all threads, as long as a command runs in any of them."""
    global _n_commands
    with _lock:
        _n_commands += 1
    try:
        yield
    finally:
        with _lock:
            _n_commands -= 1


def spell(keyword: str) -> str:
    """Return an option as the reader of an error writes it: a keyword in Python, a flag on the command line.

    >>> spell("rescore=True"), spell("run_dir="), spell("swap='all'")
    ('rescore=True', 'run_dir=', "swap='all'")
    >>> with spelled_as_flags():
    ...     spell("rescore=True"), spell("run_dir="), spell("swap='all'")
    ('--rescore', '--run-dir', '--swap all')
    """
    if not _n_commands:
        return keyword
    name, _, value = keyword.partition("=")
    given = value.strip("'\"")
    return flag_name(name) if given in ("", "True") else f"{flag_name(name)} {given}"
