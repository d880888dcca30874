"""What a blender's settings mean: what there is to fit, and the blend where there is nothing."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from threadpoolctl import threadpool_limits

from lmsys_ensemble.blending.blend import Blend
from lmsys_ensemble.blending.checks import Array, as_fixed, check_integer
from lmsys_ensemble.blending.diagnosis import MemberWarning, diagnose_members
from lmsys_ensemble.blending.selection import candidate_specs, select_spec
from lmsys_ensemble.blending.spec import BlenderParameters, BlendSpec
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.notices import warn
from lmsys_ensemble.probabilities import Probabilities


class BlenderNotFittedError(ConfigError, NotFittedError):  # type: ignore[misc]
    """A blender was asked to predict before it learnt what its method needs."""


class BlenderSettings(BlenderParameters):
    """The part of a blender that turns its settings into a blend, or into what has to be fitted."""

    blend_: Blend

    def _n_members(self) -> int | None:
        """Return the number of members that the values are for; None where any number will do."""
        if hasattr(self, "blend_"):
            return self.blend_.n_scorers
        sizes = [len(fixed) for fixed in map(as_fixed, (self.weights, self.temperature)) if isinstance(fixed, tuple)]
        return sizes[0] if sizes else None

    def _spec(self, n_scorers: int, n_classes: int) -> BlendSpec:
        """Turn the settings into a checked spec; of ``auto`` the equal blend that it starts from."""
        weights, temperature = as_fixed(self.weights), as_fixed(self.temperature)
        check_integer(self.n_folds, "n_folds", 2)
        check_integer(self.seed, "seed", 0)
        if isinstance(weights, float):
            weights = (weights,)
        if self.method == "auto":
            if weights is not None or temperature is not None:
                raise ConfigError(
                    "method 'auto' chooses weights and temperatures; drop the fixed ones or name a method"
                )
            return candidate_specs(n_scorers, n_classes, self.calibration, l2=self.l2)[0]
        calibration = self.calibration or ("bias" if self.method == "stack" else "none")
        return BlendSpec(self.method, calibration, weights, temperature, bool(self.swap_equivariant), self.l2)

    def _current_blend(self, n_scorers: int) -> Blend:
        """Return the fitted blend, or the one of fixed values."""
        if hasattr(self, "blend_"):
            if self.blend_.n_scorers != n_scorers:
                raise InputError(f"got probabilities of {n_scorers} scorers, the blender has {self.blend_.n_scorers}")
            return self.blend_
        if not self.__sklearn_is_fitted__():
            raise BlenderNotFittedError(
                f"Blender(method={self.method!r}, calibration={self.calibration!r}) has to learn first; call "
                "fit(probabilities, y), load a fitted one, or give fixed weights and no calibration"
            )
        return self._spec(n_scorers, 0).fixed_blend(n_scorers)

    def _learn(
        self, members: list[Probabilities], labels: Probabilities, weights: Array, codes: NDArray[np.intp]
    ) -> tuple[BlendSpec, pd.DataFrame | None, Blend]:
        """Return what was chosen, among what, and the blend that was fitted; warn of what is wrong with members."""
        spec, selection = self._spec(len(members), labels.shape[1]), None
        # One thread: the matrices are narrow, so that more only get in each other's way, and sums come out
        # alike on any number of cores.
        with threadpool_limits(limits=1, user_api="blas"):
            for finding in diagnose_members(members, labels, weights, codes):
                warn(finding, MemberWarning)
            if self.method == "auto" and codes.max() > 0:
                candidates = candidate_specs(
                    len(members),
                    labels.shape[1],
                    self.calibration,
                    swap_equivariant=self.swap_equivariant,
                    l2=self.l2,
                )
                spec, selection = select_spec(
                    candidates, members, labels, weights, codes, n_folds=self.n_folds, seed=self.seed
                )
            return spec, selection, spec.fit(members, labels, weights)

    @property
    def needs_fit(self) -> bool:
        """Whether these settings leave anything to learn from labels."""
        return self.method == "auto" or self._spec(1, 1).needs_fit

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "blend_") or not self.needs_fit
