"""The file that a blender is saved in: JSON with a format name and a version, all checked when it is read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field

from lmsys_ensemble.blending.blend import Blend, Pool
from lmsys_ensemble.blending.checks import as_fixed
from lmsys_ensemble.blending.members import check_names
from lmsys_ensemble.blending.spec import BlenderParameters, ClassName, Method
from lmsys_ensemble.documents import parse_json
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import write_json
from lmsys_ensemble.settings import Settings, parse_settings

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
    n_rows: int = Field(ge=0)
    n_classes: int = Field(ge=2, le=1000)
    log_loss: float
    selection: list[dict[str, str | bool | int | float]] | None
    members: list[str] | None = None
    """Names in the order of the weights; files of earlier releases have none."""
    fingerprints: dict[str, Any] = Field(default={})
    classes: list[ClassName] | None = None


class StoredParameters(Settings, BlenderParameters):
    """Arguments of the blender's constructor; files of earlier releases have no ``classes``."""

    classes: Sequence[ClassName] | None = None


class StoredBlender(Settings):
    """The whole file."""

    format: Literal["lmsys_ensemble.blender"]
    version: Literal[1]
    parameters: StoredParameters
    fitted: StoredFit | None


def describe_blender(blender: Any) -> dict[str, Any]:
    """Return parameters and fitted values of a `lmsys_ensemble.Blender` as JSON types."""
    parameters = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in blender.get_params(deep=False).items()
    }
    for name in ("weights", "temperature"):
        fixed = as_fixed(parameters[name])
        parameters[name] = list(fixed) if isinstance(fixed, tuple) else fixed
    if parameters["classes"] is not None:
        parameters["classes"] = np.asarray(parameters["classes"]).tolist()
    fitted = None
    if hasattr(blender, "blend_"):
        names, classes = blender.member_names_, blender.classes_.tolist()
        fitted = {
            "method": blender.method_,
            "calibration": blender.calibration_,
            "blend": blender.blend_.to_dict(),
            "n_rows": blender.n_rows_,
            "n_classes": blender.n_classes_,
            "log_loss": blender.log_loss_,
            "selection": None if blender.selection_ is None else blender.selection_.to_dict("records"),
            "members": None if names is None else list(names),
            "fingerprints": blender.fingerprints_,
            "classes": None if classes == list(range(blender.n_classes_)) else classes,
        }
    return {"format": FORMAT, "version": VERSION, "parameters": parameters, "fitted": fitted}


def restore_fit(blender: Any, fit: StoredFit) -> None:
    """Set what a blender had learnt, all but the blend itself.

    Raises
    ------
    ConfigError
        If there are not as many names as weights or classes.
    """
    names = None if fit.members is None else check_names(fit.members, ConfigError)
    for what, values, expected in (
        ("members", names, len(fit.blend.weights)), ("classes", fit.classes, fit.n_classes),
    ):  # fmt: skip
        if values is not None and len(values) != expected:
            raise ConfigError(f"the blender's file names {len(values)} {what}, its values are for {expected}")
    blender.method_, blender.calibration_ = fit.method, fit.calibration
    blender.selection_ = None if fit.selection is None else pd.DataFrame(fit.selection)
    blender.n_rows_, blender.n_classes_, blender.log_loss_ = fit.n_rows, fit.n_classes, fit.log_loss
    blender.member_names_, blender.fingerprints_ = names, dict(fit.fingerprints)
    blender.classes_ = np.arange(fit.n_classes) if fit.classes is None else np.asarray(fit.classes)


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


class StoredAsJson:
    """The part of a blender that writes it to a file and reads it back."""

    def _store(self, blend: Blend) -> None:
        """Keep a fitted blend."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return parameters and fitted values as JSON types."""
        return describe_blender(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str | Path = "blender") -> Self:
        """Return the blender that `to_dict` described.

        Parameters
        ----------
        values : mapping
            From `to_dict`.
        source : str or Path
            What an error message calls it.

        Raises
        ------
        ConfigError
            If a key is missing, unknown or wrong, or values contradict each other.
        """
        stored = parse_blender(values, source)
        blender = cls(**stored.parameters.model_dump())
        if stored.fitted is not None:
            restore_fit(blender, stored.fitted)
            blender._store(Blend.from_dict(stored.fitted.blend.model_dump()))
        return blender

    def save(self, path: str | Path) -> None:
        """Write the blender as one JSON file, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        ConfigError
            If the file is not there, is no blender, or holds values that cannot be.
        """
        return cls.from_dict(read_blender(path), path)
