"""The blender: one prediction out of several scorers' probabilities, with scikit-learn's conventions."""

import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from lmsys_ensemble.blending.blend import Blend, Pool, check_members, check_temperatures, check_weights
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.probabilities import Probabilities

Method: TypeAlias = Literal["equal", "linear", "log", "stack", "greedy", "auto"]
FORMAT, VERSION = "lmsys_ensemble.blender", 1


class BlenderNotFittedError(ConfigError, NotFittedError):
    """A blender was asked to predict with values that it has yet to learn."""


class MissingMemberWarning(UserWarning):
    """A prediction was made without some of the scorers."""


class Blender(BaseEstimator):  # type: ignore[misc]
    """Blend the probabilities of several scorers. (Docstring to come.)"""

    def __init__(
        self,
        method: Method = "equal",
        calibration: str = "none",
        *,
        weights: Sequence[float] | None = None,
        temperature: float | Sequence[float] | None = None,
        swap_equivariant: bool = False,
        l2: float = 1.0,
        n_folds: int = 5,
        seed: int = 0,
    ):
        self.method = method
        self.calibration = calibration
        self.weights = weights
        self.temperature = temperature
        self.swap_equivariant = swap_equivariant
        self.l2 = l2
        self.n_folds = n_folds
        self.seed = seed

    def predict_proba(
        self, probabilities: Sequence[ArrayLike | None], missing: Literal["error", "renormalise"] = "error"
    ) -> Probabilities:
        """Blend.

        Parameters
        ----------
        probabilities : list of array-like of shape (n_rows, n_classes)
            One a scorer, in the order of `fit` or of the fixed weights; None where a scorer is missing.
        missing : {"error", "renormalise"}
            What to do about scorers that are missing.
        """
        absent = [position for position, member in enumerate(probabilities) if member is None]
        if absent and missing != "renormalise":
            raise InputError(f"scorers {absent} are missing; pass missing='renormalise' to blend the others")
        members = check_members([member for member in probabilities if member is not None])
        blend = self._blend(len(probabilities))
        if absent:
            blend = blend.without(absent)
            warnings.warn(f"scorers {absent} are missing", MissingMemberWarning, stacklevel=2)
        return blend.apply(members)

    def _blend(self, n_scorers: int) -> Blend:
        if hasattr(self, "blend_"):
            return self.blend_
        if self.calibration != "none" or (self.weights is None and self.method != "equal"):
            raise BlenderNotFittedError(
                f"this Blender(method={self.method!r}, calibration={self.calibration!r}) has nothing to blend with "
                "yet; call fit(probabilities, y), load a fitted one, or give fixed weights"
            )
        if self.method not in ("equal", "linear", "log"):
            raise ConfigError(f"method {self.method!r} takes no fixed weights")
        weights = np.full(n_scorers, 1 / n_scorers) if self.weights is None else check_weights(self.weights)
        if len(weights) != n_scorers:
            raise ConfigError(f"{len(weights)} weights for {n_scorers} scorers; give one a scorer")
        after, before = 1.0, np.ones(n_scorers)
        if self.temperature is not None and np.ndim(self.temperature):
            before = check_temperatures(self.temperature)
        elif self.temperature is not None:
            after = float(check_temperatures(self.temperature)[0])
        pool: Pool = "log" if self.method == "log" else "linear"
        return Blend(pool, weights if pool == "log" else weights / weights.sum(), before, after)

    def to_dict(self) -> dict[str, Any]:
        """Return parameters and fitted values as JSON types."""
        parameters = {
            name: list(value) if isinstance(value, (tuple, np.ndarray)) else value
            for name, value in self.get_params(deep=False).items()
        }
        fitted = {"blend": self.blend_.to_dict()} if hasattr(self, "blend_") else None
        return {"format": FORMAT, "version": VERSION, "parameters": parameters, "fitted": fitted}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Blender":
        """Return the blender that `to_dict` described."""
        if values.get("format") != FORMAT or values.get("version") != VERSION:
            raise ConfigError(f"expected a {FORMAT} of version {VERSION}, got {values.get('format')!r} version {values.get('version')!r}")
        blender = cls(**values["parameters"])
        if values["fitted"] is not None:
            blender.blend_ = Blend.from_dict(values["fitted"]["blend"])
        return blender

    def save(self, path: str | Path) -> None:
        """Write the blender as JSON, atomically."""
        path = Path(path)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as stream:
            json.dump(self.to_dict(), stream, indent=2, allow_nan=False)
        os.replace(stream.name, path)

    @classmethod
    def load(cls, path: str | Path) -> "Blender":
        """Read what `save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
