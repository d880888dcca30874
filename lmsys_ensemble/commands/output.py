"""What all commands share: the shape of their results, what they say while they work, where they may write."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.files import write_atomically
from lmsys_ensemble.terminal import printable

Result = tuple[dict[str, Any], str]
"""What a command prints: values for ``--json``, and a text for people."""

TABLE_SUFFIXES = (".csv", ".parquet")


def say(text: str) -> None:
    """Tell the user what takes time, on standard error."""
    print(printable(text), file=sys.stderr, flush=True)


def check_writable(path: str | Path) -> None:
    """Raise `InputError` before hours of work if the result could not be written."""
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist; make it before the run")
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder, expected the path of a file")


def check_suffix(path: str | Path, option: str, allowed: tuple[str, ...] = TABLE_SUFFIXES) -> None:
    """Raise `InputError` where the name of a file does not say what will be in it."""
    if Path(path).suffix.lower() not in allowed:
        raise InputError(f"{option} must end in {' or '.join(allowed)}, got {Path(path).name!r}")


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write predictions as CSV or Parquet, by suffix; ids stay as they came, because others are matched by them."""
    if Path(path).suffix.lower() == ".csv":
        write_atomically(path, table.to_csv(index=False))
    else:
        write_atomically(path, table.to_parquet(index=False))
