"""What all commands share: the shape of their results, what they say while they work, how results are written."""

import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from lmsys_ensemble.data.tables import encode_table
from lmsys_ensemble.errors import OutputError
from lmsys_ensemble.files import is_special, open_descriptor, write_atomically
from lmsys_ensemble.terminal import printable

Written = TypeVar("Written")

_STANDARD_OUTPUT = 1


@dataclass(frozen=True)
class Result:
    """What a command prints.

    Attributes
    ----------
    values : dict
        For ``--json``.
    text : str
        For people; empty where a table went to standard output.
    time_was_up : bool
        Whether rows of the result lack something because there was no time for it.
    """

    values: dict[str, Any]
    text: str
    time_was_up: bool = False


def say(text: str) -> None:
    """Tell the user what takes time, on standard error."""
    print(printable(text), file=sys.stderr, flush=True)


def is_stream(path: str | Path) -> bool:
    """Tell whether a path is a pipe, a device or an open file, whose name says no format."""
    return open_descriptor(path) is not None or is_special(path)


def is_standard_output(path: str | Path) -> bool:
    """Tell whether a path is standard output itself."""
    return open_descriptor(path) == _STANDARD_OUTPUT


def shown(path: str | Path) -> str:
    """Return a path as results name it: in full, streams as they were given."""
    return str(path) if is_stream(path) else str(Path(path).resolve())


def finish(result: Result, *outputs: str | Path | None) -> Result:
    """Return what is left to print; where an output was standard output itself, the text goes to standard error."""
    if any(path is not None and is_standard_output(path) for path in outputs):
        say(result.text)
        return replace(result, text="")
    return result


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write predictions in the format that the name says; ids stay as they came, because others are matched by them."""
    write_atomically(path, encode_table(table, path))


def write_or_keep(
    path: str | Path, write: Callable[[str | Path], Written], run_dir: str | Path | None = None
) -> Written:
    """Write a result; where that fails, keep it somewhere else and say where.

    Parameters
    ----------
    path : str or Path
        Where it should go.
    write : callable
        Writes the result to the path that it is given.
    run_dir : str or Path, optional
        The run's folder, the first place to keep it in.

    Raises
    ------
    OutputError
        If the result is not where it should be; names the file that holds it.
    """
    try:
        return write(path)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and is_standard_output(path):
            raise  # the reader has what it wanted
        reason = f"{path} could not be written: {error.strerror or error}"
        for other in _other_places(path, run_dir):
            with suppress(OSError):
                write(other)
                raise OutputError(f"{reason}. Nothing is lost: the result is kept in {other}") from error
        raise OutputError(f"{reason}, and neither could a copy in {tempfile.gettempdir()} or {os.getcwd()}") from error


def _other_places(path: str | Path, run_dir: str | Path | None) -> Iterator[Path]:
    name = Path(path).name[:60] if not is_stream(path) else "result.csv"
    folders = [Path(run_dir)] if run_dir else []
    for folder in [*folders, Path(tempfile.gettempdir()), Path.cwd()]:
        if folder.is_dir():
            yield (folder / f"lmsys-ensemble-{secrets.token_hex(4)}-{name}").resolve()
