"""Checkpoints of a run: which ones are whole, and whether they are of the run that is to be resumed."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import write_atomically

CHECKPOINTS = "checkpoints"
RUN_FILE = "run.json"
COMPLETE_FILE = "complete"
_NO_PART_OF_THE_RUN = ("name", "report_to", "checkpoint_steps")
"""Settings that may change between an interruption and its resumption."""

HASHES = ("data_sha256", "held_sha256", "ids_sources_groups_sha256", "base_sha256")
"""What a run is known by beside its settings: texts and labels of its rows, what else is told of them, and the base."""


def mark_complete(checkpoint: Path) -> None:
    """Say that a checkpoint was written to its end."""
    write_atomically(checkpoint / COMPLETE_FILE, "")


def last_complete(folder: Path) -> Path | None:
    """Return the last checkpoint that was written to its end, after removing those that were not."""
    found = []
    for checkpoint in folder.glob("checkpoint-*"):
        number = checkpoint.name.partition("-")[2]
        if not (checkpoint / COMPLETE_FILE).is_file():
            shutil.rmtree(checkpoint)
        elif number.isdigit():
            found.append((int(number), checkpoint))
    return max(found)[1] if found else None


def unwritten(checkpoint: Path, error: Exception) -> str:
    """Return what to say of a checkpoint that could not be written, after removing what there is of it."""
    shutil.rmtree(checkpoint, ignore_errors=True)
    last = last_complete(checkpoint.parent)
    kept = f"{last} is kept: free some space, and resume from there" if last else "There is no earlier one"
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{checkpoint} cannot be written; the disk is probably full ({why}). {kept}"


def describe_run(
    settings: Mapping[str, Any], hashes: Mapping[str, Any], inputs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a run is known by.

    Parameters
    ----------
    settings : mapping
        The recipe.
    hashes : mapping
        Those of rows and base model, see `HASHES`.
    inputs : mapping, optional
        Hashes of what else it reads, if anything.
    """
    kept = {name: value for name, value in settings.items() if name not in _NO_PART_OF_THE_RUN}
    run = {"settings": kept, **hashes}
    return {**run, "inputs": dict(inputs)} if inputs else run


def compare_runs(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise `ConfigError` if what lies in a folder is of another run than `now`; names what differs."""
    differences = _differences(before, now)
    if differences:
        raise ConfigError(
            f"{folder} is of another run: {'; '.join(differences[:5])}. Resume with what it was begun with, or begin "
            "anew with --overwrite"
        )


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = sorted({*before, *now})
        return [
            fault
            for name in names
            for fault in _differences(before.get(name), now.get(name), f"{where}.{name}" if where else str(name))
        ]
    if before == now:
        return []
    return [f"{where} is {_short(now)}, was {_short(before)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
