"""What to fit: the methods, the calibrations, which of them go together, and how a blend is fitted by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

import numpy as np

from lmsys_ensemble.blending.blend import Blend, apply_temperature
from lmsys_ensemble.blending.checks import Array, check_pull, check_temperatures, check_weights
from lmsys_ensemble.blending.temperature import fit_temperature
from lmsys_ensemble.blending.weights import (
    fit_exponents,
    fit_linear_weights,
    fit_stack,
    mean_exponents,
    select_greedily,
)
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.settings import suggest

Method: TypeAlias = Literal["equal", "greedy", "linear", "log", "stack", "auto"]
METHODS: tuple[str, ...] = get_args(Method)
"""Names of the methods, the simplest first."""

ClassName: TypeAlias = str | bool | int | float

CALIBRATIONS = ("before", "after", "bias")
"""Parts of a calibration, joined by "+": temperatures per scorer, one after the blend, class biases."""


class BlenderParameters:
    """Parameters of a blender and their types, for its settings and for the file that it is saved in."""

    method: Method
    calibration: str | None
    weights: Sequence[float] | None
    temperature: float | Sequence[float] | None
    swap_equivariant: bool
    l2: float
    n_folds: int
    seed: int
    classes: Sequence[ClassName] | None


def parse_calibration(calibration: str) -> frozenset[str]:
    """Split e.g. ``"before+after"`` into its parts; ``"none"`` has none.

    Raises
    ------
    ConfigError
        For an unknown part.
    """
    if not isinstance(calibration, str):
        raise ConfigError(f"calibration must be a string such as 'none' or 'before+after', got {calibration!r}")
    parts = frozenset() if calibration == "none" else frozenset(calibration.split("+"))
    for part in sorted(parts - set(CALIBRATIONS)):
        raise ConfigError(f"unknown calibration {part!r}{suggest(part, ('none', *CALIBRATIONS))}; join several by '+'")
    return parts


@dataclass(frozen=True)
class BlendSpec:
    """A method, a calibration and what is fixed: everything that a fit needs beside the data.

    Parameters
    ----------
    method : {"equal", "greedy", "linear", "log", "stack"}
        How scorers are combined; see `lmsys_ensemble.Blender`.
    calibration : str
        "none", or "before", "after" and "bias" joined by "+".
    weights : tuple of float, optional
        Weights to keep; for method "log" exponents.
    temperature : float or tuple of float, optional
        A temperature to keep: a number after the blend, or one per scorer before it.
    swap_equivariant : bool
        Whether swapping the responses in all inputs must swap them in the result.
    l2 : float
        Pull towards the equal blend, beside a summed log loss.

    Raises
    ------
    ConfigError
        If a value is wrong or two of them contradict each other.
    """

    method: str = "equal"
    calibration: str = "none"
    weights: tuple[float, ...] | None = None
    temperature: float | tuple[float, ...] | None = None
    swap_equivariant: bool = False
    l2: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.method == "auto":
            raise ConfigError(f"unknown method {self.method!r}{suggest(str(self.method), METHODS)}")
        check_pull(self.l2)
        self._check_calibration()
        if self.weights is not None:
            check_weights(self.weights)
            if self.method in ("greedy", "stack"):
                raise ConfigError(f"method {self.method!r} fits its weights; fixed weights go with 'linear' or 'log'")
        if self.temperature is not None:
            check_temperatures(self.temperature)

    def _check_calibration(self) -> None:
        """Refuse a calibration that the method makes void, and one that would fit what is fixed."""
        parts = parse_calibration(self.calibration)
        if self.absorbs_temperatures and (parts - {"bias"} or self.temperature is not None):
            raise ConfigError(
                f"method {self.method!r} holds the temperatures in what it fits, so that calibration "
                f"{self.calibration!r} with temperature {self.temperature} adds nothing; use 'none' or 'bias'"
            )
        fixed = None if self.temperature is None else "before" if np.ndim(self.temperature) else "after"
        if fixed in parts:
            raise ConfigError(
                f"temperature {self.temperature} is fixed, but calibration {fixed!r} would fit it; drop one"
            )

    @property
    def absorbs_temperatures(self) -> bool:
        """Whether temperatures are part of what the method fits."""
        return self.method == "stack" or (self.method == "log" and self.weights is None)

    @property
    def needs_fit(self) -> bool:
        """Whether there is anything to learn from labels."""
        return self.calibration != "none" or (self.weights is None and self.method != "equal")

    def n_parameters(self, n_scorers: int, n_classes: int) -> int:
        """Count what is learnt: the measure of simplicity."""
        parts = parse_calibration(self.calibration)
        counts = {"equal": 0, "greedy": n_scorers - 1, "linear": n_scorers - 1, "log": n_scorers}
        counts["stack"] = n_scorers * n_classes * (n_classes - 1) // (2 if self.swap_equivariant else 1)
        learnt = 0 if self.weights is not None else counts[self.method]
        return learnt + n_scorers * ("before" in parts) + ("after" in parts) + (n_classes - 1) * ("bias" in parts)

    def fixed_blend(self, n_scorers: int) -> Blend:
        """Return the blend of the fixed values, equal weights where none are fixed.

        Raises
        ------
        ConfigError
            If the number of weights or temperatures is not the number of scorers.
        """
        weights = np.full(n_scorers, 1 / n_scorers) if self.weights is None else check_weights(self.weights)
        before, after = np.ones(n_scorers), 1.0
        if self.temperature is not None and np.ndim(self.temperature):
            before = check_temperatures(self.temperature)
        elif self.temperature is not None:
            after = float(cast(float, self.temperature))
        for name, values in (("weights", weights), ("temperatures", before)):
            if len(values) != n_scorers:
                raise ConfigError(f"{len(values)} {name} for {n_scorers} scorers; give one per scorer, in their order")
        if self.method == "log":
            return Blend("log", weights, before, after)
        return Blend("linear", weights / weights.sum(), before, after)

    def fit(self, members: list[Probabilities], labels: Probabilities, sample_weight: Array | None = None) -> Blend:
        """Fit the blend, stage by stage: temperatures before, weights, then temperature and biases after.

        Every stage is convex and is solved exactly. All at once would not be: it ends in blends of one
        sharpened scorer with a nearly uniform one, which are hardly better and mean nothing.

        Parameters
        ----------
        members : list of ndarray of shape (n_rows, n_classes)
            Checked probabilities, one array per scorer.
        labels : ndarray of shape (n_rows, n_classes)
            One-hot or soft labels.
        sample_weight : ndarray of shape (n_rows,), optional
            Weights of the rows.

        Returns
        -------
        Blend
        """
        parts, symmetric, l2 = parse_calibration(self.calibration), self.swap_equivariant, self.l2
        fixed = self.fixed_blend(len(members))
        bias, with_bias = None, "bias" in parts
        if self.method == "stack":
            coefficients, bias = fit_stack(
                members, labels, sample_weight, bias=with_bias, swap_equivariant=symmetric, l2=l2
            )
            return Blend("stack", mean_exponents(coefficients), bias=bias, coefficients=coefficients)
        if self.absorbs_temperatures:
            weights, bias = fit_exponents(
                members, labels, sample_weight, bias=with_bias, swap_equivariant=symmetric, l2=l2
            )
            return Blend("log", weights, bias=bias)
        temperatures, weights, temperature = fixed.temperatures, fixed.weights, fixed.temperature
        if "before" in parts:
            temperatures = np.array([fit_temperature(p, labels, sample_weight, l2=l2)[0] for p in members])
        if self.weights is None and self.method != "equal":
            calibrated = [apply_temperature(member, t) for member, t in zip(members, temperatures, strict=True)]
            fit_weights = select_greedily if self.method == "greedy" else fit_linear_weights
            weights = fit_weights(calibrated, labels, sample_weight)
        blend = Blend(fixed.pool, weights, temperatures, temperature)
        if parts & {"after", "bias"}:
            fitted, bias = fit_temperature(
                blend.apply(members), labels, sample_weight,
                scale="after" in parts, bias=with_bias, swap_equivariant=symmetric, l2=l2,
            )  # fmt: skip
            blend = Blend(fixed.pool, weights, temperatures, fitted if "after" in parts else temperature, bias)
        return blend
