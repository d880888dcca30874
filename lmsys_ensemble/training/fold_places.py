"""Where folds lie: ``fold-K``, or ``next-fold-K`` while the folds that are there are replaced by those of another run.

Replacements take their places together, once all of them are whole: until then the folds of the earlier run, and what
was made of them, are as they were.
"""

import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import read_object, whole_folder, write_json
from lmsys_ensemble.training.checkpoints import compare_runs
from lmsys_ensemble.training.finishing import LAST_FILE
from lmsys_ensemble.training.folds_card import CARD_FILE, CONFIG_FILE
from lmsys_ensemble.training.out_of_fold import LABELS_FILE, OOF_FILE
from lmsys_ensemble.training.rows import CLEANING_FILE

FOLD_FILE, FIGURES_FILE = "fold.json", "folds.json"
_MADE_OF_ALL = (OOF_FILE, LABELS_FILE, FIGURES_FILE, CONFIG_FILE, CARD_FILE, CLEANING_FILE)
_NEXT = "next-"
_FOLDER = re.compile(rf"({_NEXT})?fold-([1-9]\d*)")


def place(folder: Path, fold: int) -> Path:
    """Return the folder that a fold is trained in, or was."""
    return following(folder, fold) if following(folder, fold).is_dir() else folder / f"fold-{fold}"


def following(folder: Path, fold: int) -> Path:
    """Return the folder of what replaces a fold."""
    return folder / f"{_NEXT}fold-{fold}"


def present(folder: Path) -> set[int]:
    """Return the numbers of the folds that are in a folder, replacements or not.

    Raises
    ------
    ConfigError
        If one of these folders is not of a training with folds.
    """
    return _numbers(folder, "") | replacements(folder)


def replacements(folder: Path) -> set[int]:
    """Return the numbers of the folds that are being replaced."""
    return _numbers(folder, _NEXT)


def holds_nothing_yet(folder: Path) -> bool:
    """Tell whether other processes have locked folds or made their folders in a folder, and nothing else is in it."""
    inside = [*folder.iterdir()] if folder.is_dir() else []
    return bool(inside) and all(
        path.name.startswith((".fold", f".{_NEXT}fold")) or (_FOLDER.fullmatch(path.name) and _holds_nothing(path))
        for path in inside
    )


def is_whole(fold: Path) -> bool:
    """Tell whether a fold is trained, and its rows are scored."""
    return (fold / LAST_FILE).is_file() and (fold / OOF_FILE).is_file()


def mark(fold: Path, number: int, run: Mapping[str, Any]) -> None:
    """Say whose a fold is: another process finds its folder with that file in it, or not at all."""
    with whole_folder(fold) as folder:
        write_json(folder / FOLD_FILE, {"fold": number, "run": run})


def check_runs(folder: Path, run: Mapping[str, Any], n_splits: int, but: Iterable[int] = ()) -> None:
    """Raise `ConfigError` if a fold is of another run; names what differs. Folds that are replaced have no say."""
    replaced = replacements(folder)
    for number in sorted(present(folder) - {*but}):
        if number > n_splits and replaced and number not in replaced:
            continue  # the earlier run had more folds
        compare_runs(read_object(place(folder, number) / FOLD_FILE).get("run", {}), run, place(folder, number))


def replace(folder: Path, folds: Collection[int], run: Mapping[str, Any]) -> None:
    """Begin folds anew; those that are there stay until `take_places`."""
    for number in {number for number in replacements(folder) if number in folds or number > run["n_splits"]}:
        _remove(following(folder, number))
    for number in folds:
        mark(following(folder, number), number, run)


def take_places(folder: Path, n_splits: int) -> None:
    """Let replacements take the places of the folds that they replace, if all of them are whole.

    What was made of all folds goes with these. It may be killed at any moment and called again.
    """
    replaced = replacements(folder)
    if not replaced or not all(is_whole(following(folder, number)) for number in replaced):
        return
    for name in _MADE_OF_ALL:
        (folder / name).unlink(missing_ok=True)
    for number in {number for number in _numbers(folder, "") if number > n_splits} - replaced:
        _remove(folder / f"fold-{number}")
    for number in sorted(replaced):
        if (folder / f"fold-{number}").is_dir():
            _remove(folder / f"fold-{number}")
        following(folder, number).rename(folder / f"fold-{number}")


def _numbers(folder: Path, prefix: str) -> set[int]:
    found = set()
    for path in folder.iterdir() if folder.is_dir() else ():
        named = _FOLDER.fullmatch(path.name)
        if not named or (named[1] or "") != prefix or _holds_nothing(path):
            continue
        if not (path / FOLD_FILE).is_file():
            raise ConfigError(f"{path} holds no {FOLD_FILE}: it is not of a training with folds. Give another folder")
        found.add(int(named[2]))
    return found


def _holds_nothing(path: Path) -> bool:
    """Tell whether a folder was made and its process killed before it wrote anything, but for a hidden half of it."""
    return path.is_dir() and all(inside.name.startswith(".") for inside in path.iterdir())


def _remove(path: Path) -> None:
    removed = path.with_name(f".{path.name}.{secrets.token_hex(6)}")  # at once: no other process sees a half of it
    shutil.rmtree(path.rename(removed))
