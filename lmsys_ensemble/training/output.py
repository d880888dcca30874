"""The folder of a training: what lies in it until the result is whole, and how the result takes its place.

Until then all that a run writes lies in ``checkpoints``: the Trainer's checkpoints, what the run is known by, and in
``result`` the files of the adapter. These then move up, ``scorer.yaml`` last: a folder that holds it is whole. An
adapter that was there before stays until then, and a run that is killed at any moment goes on.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import check_new_folder, read_object, write_json
from lmsys_ensemble.flags import spell
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE
from lmsys_ensemble.modeling.golden import GOLDEN_FILE
from lmsys_ensemble.modeling.learned_rows import LEARNED_FILE
from lmsys_ensemble.training.checkpoints import CHECKPOINTS, RUN_FILE, compare_runs, last_complete
from lmsys_ensemble.training.curves import PICTURE_FILE
from lmsys_ensemble.training.finishing import LAST_FILE, run_of_result
from lmsys_ensemble.training.job import FILES
from lmsys_ensemble.training.locks import OUTPUT_LOCK
from lmsys_ensemble.training.processes import is_main
from lmsys_ensemble.training.rows import CLEANING_FILE
from lmsys_ensemble.training.watching import CURVES_FILE, EVENTS

_OWN_FILES = (
    *FILES, LEARNED_FILE, GOLDEN_FILE, CURVES_FILE, PICTURE_FILE, CLEANING_FILE, EVENTS, "recipe.json", "README.md",
)  # fmt: skip
"""What a result may consist of; of an earlier one, nothing stays beside the new one."""


def result_folder(folder: Path) -> Path:
    """Return where the files of a result lie until it is whole."""
    return folder / CHECKPOINTS / "result"


def is_begun(folder: Path) -> bool:
    """Tell whether a folder holds a training, whole or interrupted."""
    return (folder / LAST_FILE).is_file() or (folder / CHECKPOINTS / RUN_FILE).is_file()


def check_output(folder: Path, *, overwrite: bool, resume: bool) -> None:
    """Make sure that a training may write to a folder; nothing is changed.

    Raises
    ------
    ConfigError
        If it is to go on where there is no training.
    InputError
        If it cannot be written to, or holds something that is not to be replaced.
    """
    there = sorted({path.name for path in folder.iterdir()} - {OUTPUT_LOCK}) if folder.is_dir() else []
    check_new_folder(
        folder,
        overwrite=overwrite or resume or not there,
        cure=f"a trained adapter is not replaced unasked: give a new folder, {spell('overwrite=True')}, or "
        f"{spell('resume=True')} to go on",
    )
    if resume and there and not is_begun(folder):
        raise ConfigError(
            f"{folder} holds no training that could be gone on with, but {', '.join(there[:3])}"
            f"{', …' if len(there) > 3 else ''}. Give another folder, or {spell('overwrite=True')} instead of "
            f"{spell('resume=True')} to replace the adapter that is there"
        )


def is_finished(folder: Path, run: Mapping[str, Any]) -> bool:
    """Tell whether the result of a run is there, in its place or on the way to it.

    Parameters
    ----------
    folder : Path
        The folder of the training.
    run : mapping
        What the run is known by, see `lmsys_ensemble.training.checkpoints.describe_run`.

    Raises
    ------
    ConfigError
        If what is there, or has been begun, is of another run; names what differs.
    """
    path, is_whole = folder / CHECKPOINTS / RUN_FILE, (folder / LAST_FILE).is_file()
    if path.is_file():
        compare_runs(read_object(path), run, folder)
        return (result_folder(folder) / LAST_FILE).is_file() or (is_whole and run_of_result(folder) == dict(run))
    if is_whole:
        compare_runs(run_of_result(folder), run, folder)
    return is_whole


def begin(folder: Path, run: Mapping[str, Any], *, anew: bool) -> None:
    """Say in a folder which run it is that works there; what another one has begun is removed.

    Parameters
    ----------
    folder : Path
        The folder of the training.
    run : mapping
        What the run is known by.
    anew : bool
        Whether checkpoints of the same run are removed, too.
    """
    path = folder / CHECKPOINTS / RUN_FILE
    if anew or not path.is_file():  # checkpoints that do not say of which run they are belong to none
        path.unlink(missing_ok=True)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        write_json(path, dict(run))


def take_place(folder: Path) -> None:
    """Move a whole result to where it belongs, and remove what was only needed until then.

    It may be killed at any moment and called again. Where nothing is on the way, only leftovers are removed.
    """
    made = result_folder(folder)
    if (made / LAST_FILE).is_file():
        names = {path.name for path in made.iterdir()}
        (folder / LAST_FILE).unlink(missing_ok=True)
        if WEIGHTS_FILE in names:  # they move first: once they have, what lies in the folder is new
            for name in {*_OWN_FILES} - names:
                _remove(folder / name)
        for name in sorted(names, key=lambda name: (name == LAST_FILE, name != WEIGHTS_FILE)):
            if (made / name).is_dir():
                _remove(folder / name)
            os.replace(made / name, folder / name)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


@contextmanager
def says_how_to_go_on(folder: Path, again: str) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM say from which step a training goes on, behind what is noted already.

    Parameters
    ----------
    folder : Path
        The folder of the training.
    again : str
        How it is started again.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if is_main():
            step, before = last_step(folder), "".join(f"{note}; " for note in getattr(stop, "__notes__", []))
            how = f"there is no checkpoint yet, {again} begins anew"
            stop.__notes__ = [before + (how if step is None else f"{again} goes on from step {step}")]
        raise


def last_step(folder: Path) -> int | None:
    """Return the step of the last whole checkpoint of a training; None where there is none."""
    checkpoint = last_complete(folder / CHECKPOINTS)
    return None if checkpoint is None else int(checkpoint.name.partition("-")[2])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
