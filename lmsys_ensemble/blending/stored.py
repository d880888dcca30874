"""The file that a blender is saved in: JSON with a format name and a version, all checked when it is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lmsys_ensemble.blending.blend import Pool
from lmsys_ensemble.blending.recipe import Method
from lmsys_ensemble.documents import parse_json
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import Settings, parse_settings

FORMAT: Literal["lmsys_ensemble.blender"] = "lmsys_ensemble.blender"
VERSION: Literal[1] = 1


class StoredBlend(Settings):
    """Values of `lmsys_ensemble.blending.blend.Blend`."""

    pool: Pool
    weights: list[float]
    temperatures: list[float]
    temperature: float
    bias: list[float] | None
    coefficients: list[list[list[float]]] | None


class StoredFit(Settings):
    """What a blender learnt."""

    method: Method
    calibration: str
    blend: StoredBlend
    n_rows: int
    n_classes: int
    log_loss: float
    selection: list[dict[str, str | bool | int | float]] | None


class StoredParameters(Settings):
    """Arguments of the blender's constructor."""

    method: Method
    calibration: str | None
    weights: list[float] | None
    temperature: float | list[float] | None
    swap_equivariant: bool
    l2: float
    n_folds: int
    seed: int


class StoredBlender(Settings):
    """The whole file."""

    format: Literal["lmsys_ensemble.blender"]
    version: Literal[1]
    parameters: StoredParameters
    fitted: StoredFit | None


def parse_blender(values: Mapping[str, Any], source: str | Path = "blender") -> StoredBlender:
    """Check what was read.

    Raises
    ------
    ConfigError
        Names every key that is missing, unknown or wrong.
    """
    return parse_settings(StoredBlender, values, source)


def read_blender(path: str | Path) -> Any:
    """Read a blender's file as JSON.

    Raises
    ------
    ConfigError
        If it is not there or no JSON.
    """
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"), f"blender {path}")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no blender {path}; Blender.save writes one") from error
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"blender {path} cannot be read: {error}") from error
