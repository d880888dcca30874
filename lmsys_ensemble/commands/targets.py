"""Where results may go: checked before anything is read or loaded, so that no result is lost and no input replaced."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from lmsys_ensemble.commands.output import is_standard_output, is_stream
from lmsys_ensemble.data.formats import SUFFIXES_TEXT, table_format
from lmsys_ensemble.data.tables import encode_table
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.files import check_folder
from lmsys_ensemble.journal.folder import OWN_FILES
from lmsys_ensemble.schema import ID_COLUMN

NamedPath: TypeAlias = tuple[str, str | Path]
"""An option and the path that it was given."""


def named(option: str, paths: str | Path | Iterable[str | Path] | None) -> list[NamedPath]:
    """Return the paths of an option with its name: none, one or several."""
    if paths is None:
        return []
    return [(option, path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


def check_targets(
    outputs: Iterable[NamedPath],
    inputs: Iterable[NamedPath],
    *,
    run_dir: str | Path | None = None,
    prints_json: bool = False,
) -> None:
    """Raise `InputError` before hours of work if a result could not be written or would replace something.

    Parameters
    ----------
    outputs, inputs : iterable of (option, path)
        What is written, and what is read.
    run_dir : str or Path, optional
        The run's folder, whose own files are no outputs.
    prints_json : bool
        Whether standard output is taken by ``--json``.
    """
    outputs, inputs = list(outputs), list(inputs)
    for option, path in outputs:
        check_writable(path, option)
        if prints_json and is_standard_output(path):
            raise InputError(f"--json and {option} {path} both write to standard output; give one of them")
        for other_option, other in inputs:
            if _is_same(path, other):
                raise InputError(
                    f"{option} {path} is the same file as {other_option} {other}, which would be replaced; give "
                    "another path"
                )
        if run_dir is not None:
            _check_beside_run(option, path, Path(run_dir))
    for position, (option, path) in enumerate(outputs):
        for other_option, other in outputs[:position]:
            if _is_same(path, other):
                raise InputError(f"{other_option} and {option} are the same file, {path}; give two paths")
    for position, (option, path) in enumerate(inputs):
        for other_option, other in inputs[:position]:
            if is_stream(path) and _is_same(path, other):
                raise InputError(f"{other_option} and {option} are the same pipe, {path}, which can be read only once")


def check_writable(path: str | Path, option: str = "the output") -> None:
    """Raise `InputError` if a file could not be written: tried, not guessed, so that read-only disks are found, too."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        raise InputError(f"{option} {path} cannot be written: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{option} {path} is a folder, expected the path of a file")
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise InputError(f"{option} {path} is a disk or a socket, expected the path of a file")
    by_effective_user = os.access in os.supports_effective_ids
    if os.path.exists(path) and not os.access(path, os.W_OK, effective_ids=by_effective_user):
        raise InputError(f"{option} {path} is write-protected; give another path, or allow writing it")
    if not is_stream(path):
        check_folder(Path(os.path.realpath(path)).parent, option)


def check_table_name(path: str | Path, option: str) -> None:
    """Raise `InputError` where the name of a file does not say what kind of table will be in it."""
    if table_format(path) is None and not is_stream(path):
        raise InputError(f"{option} must end in {SUFFIXES_TEXT}, got {Path(path).name!r}")


def check_suffix(path: str | Path, option: str, allowed: tuple[str, ...]) -> None:
    """Raise `InputError` where the name of a file does not say what will be in it."""
    if not str(path).lower().endswith(allowed) and not is_stream(path):
        raise InputError(f"{option} must end in {' or '.join(allowed)}, got {Path(path).name!r}")


def check_encodable(ids: "pd.Index[Any]", path: str | Path) -> None:
    """Raise `InputError` if ids that can be read cannot be written in the format that a name says."""
    try:
        encode_table(pd.DataFrame({ID_COLUMN: ids}), path)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"ids cannot be written to {path}: {error}; write a .csv file") from error


def _check_beside_run(option: str, path: str | Path, run_dir: Path) -> None:
    target, folder = Path(os.path.realpath(path)), Path(os.path.realpath(run_dir))
    if folder == target or target in folder.parents:
        raise InputError(f"{option} {path} would be where --run-dir {run_dir} makes a folder; give another path")
    if target.parent == folder and target.name.startswith(OWN_FILES):
        raise InputError(f"{option} {path} is a file of the run in {run_dir} itself; give another path")


def _is_same(one: str | Path, other: str | Path) -> bool:
    """Tell whether two paths lead to one file, through links of both kinds; a terminal is no file."""
    try:
        if stat.S_ISCHR(os.stat(one).st_mode):
            return False
        if os.path.samefile(one, other):
            return True
    except OSError:  # one is not there yet, or cannot be looked at
        pass
    return os.path.realpath(one) == os.path.realpath(other)
