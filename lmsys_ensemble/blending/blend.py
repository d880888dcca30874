"""A blend as a value: what turns the scorers' probabilities into one prediction.

Three stages, each of which may be the identity::

    p_s  ->  softmax(log p_s / temperatures[s])                      every scorer by itself
         ->  pool                                                    linear, log or stack
         ->  softmax(log pool / temperature + bias)                  what came out of the pool

- ``linear``: sum_s weights[s] * p_s, weights on the simplex.
- ``log``: softmax(sum_s weights[s] * log p_s), the logarithmic pool (Genest & Zidek 1986, Statistical Science
  1(1)).
- ``stack``: softmax(sum_s log p_s @ coefficients[s]), of which ``log`` is the case coefficients[s] =
  weights[s] * I.

Logarithms are taken of probabilities floored at `lmsys_ensemble.probabilities.PROBABILITY_FLOOR`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from lmsys_ensemble.blending.checks import Array, check_temperatures, check_weights
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.probabilities import PROBABILITY_FLOOR, Probabilities, log_probabilities, renormalise, softmax

Pool: TypeAlias = Literal["linear", "log", "stack"]

MAX_LOGIT = 1e15
"""Floats of this size lie 0.1 apart: beyond it a blend no longer sees differences that its members make."""


@dataclass(frozen=True, eq=False)
class Blend:
    """Fitted or fixed values of a blend.

    Parameters
    ----------
    pool : {"linear", "log", "stack"}
        How the scorers are combined.
    weights : ndarray of shape (n_scorers,)
        Weights on the simplex (``linear``) or exponents (``log``). For ``stack`` the exponent that a scorer
        has on average over classes.
    temperatures : ndarray of shape (n_scorers,)
        Temperature of every scorer before the pool.
    temperature : float
        Temperature after the pool.
    bias : ndarray of shape (n_classes,), optional
        Added to the pool's log probabilities.
    coefficients : ndarray of shape (n_scorers, n_classes, n_classes), optional
        Of ``stack`` only: from a scorer's log probabilities (rows) to logits (columns).
    """

    pool: Pool
    weights: Array
    temperatures: Array = field(default_factory=lambda: np.ones(0))
    temperature: float = 1.0
    bias: Array | None = None
    coefficients: Array | None = None

    def __post_init__(self) -> None:
        if not len(self.temperatures):
            object.__setattr__(self, "temperatures", np.ones(len(self.weights)))
        self._check()

    def _check(self) -> None:
        n_scorers = len(self.weights)
        if self.pool not in get_args(Pool):
            raise ConfigError(f"unknown pool {self.pool!r}; expected one of {', '.join(get_args(Pool))}")
        if self.pool != "stack":
            check_weights(self.weights)
        check_temperatures(self.temperatures)
        check_temperatures(self.temperature)
        if len(self.temperatures) != n_scorers:
            raise ConfigError(f"{len(self.temperatures)} temperatures for {n_scorers} scorers; give one per scorer")
        if self.bias is not None and not np.isfinite(self.bias).all():
            raise ConfigError(f"bias must be finite, got {self.bias.tolist()}")
        if (self.coefficients is not None) != (self.pool == "stack"):
            raise ConfigError("coefficients belong to pool 'stack' and to no other")
        if self.coefficients is not None and (
            self.coefficients.shape != (n_scorers, *self.coefficients.shape[1:2] * 2)
            or not np.isfinite(self.coefficients).all()
        ):
            raise ConfigError(f"coefficients must be finite, of shape ({n_scorers}, n_classes, n_classes)")
        self._check_steepness()

    def _check_steepness(self) -> None:
        """Refuse values each of which is finite, and which make infinite logits together."""
        lowest = -math.log(PROBABILITY_FLOOR)
        with np.errstate(over="ignore"):
            factors = 1 / self.temperatures
            if self.coefficients is not None:
                factors = np.abs(self.coefficients).sum(axis=1).max(axis=1) / self.temperatures
            elif self.pool == "log":
                factors = self.weights / self.temperatures
            pooled = lowest * (float(factors.max()) if self.pool == "linear" else float(factors.sum()))
            logits = max(pooled, lowest / self.temperature, pooled / self.temperature)
            logits += 0.0 if self.bias is None else float(np.abs(self.bias).max())
        if not logits < MAX_LOGIT:
            raise ConfigError(
                f"weights {self.weights.tolist()}, temperatures {self.temperatures.tolist()} before and "
                f"{self.temperature:g} after make logits of up to {logits:.3g}, which is more than floats can tell "
                "apart; use smaller weights and coefficients, or temperatures nearer to 1"
            )

    @property
    def n_scorers(self) -> int:
        """Number of scorers."""
        return len(self.weights)

    def apply(self, members: Sequence[Probabilities]) -> Probabilities:
        """Blend checked probabilities (see `check_members`) into an array of shape (n_rows, n_classes).

        Raises
        ------
        InputError
            If the number of scorers or classes is not the one of the blend.
        """
        if len(members) != self.n_scorers:
            raise InputError(f"got probabilities of {len(members)} scorers, the blend has {self.n_scorers} weights")
        for values in (self.bias, self.coefficients):
            if values is not None and members[0].shape[1] != values.shape[-1]:
                raise InputError(f"probabilities have {members[0].shape[1]} classes, the blend has {values.shape[-1]}")
        if self.pool == "linear":
            parts = zip(self.weights / self.weights.sum(), members, self.temperatures, strict=True)
            pooled = renormalise(np.asarray(sum(weight * apply_temperature(member, t) for weight, member, t in parts)))
            if self.temperature == 1 and self.bias is None:
                return pooled
            logits = log_probabilities(pooled)
        else:
            logits = np.zeros_like(members[0])
            for position, member in enumerate(members):
                logs = log_probabilities(member) / self.temperatures[position]
                logits += (
                    logs * self.weights[position] if self.coefficients is None else logs @ self.coefficients[position]
                )
        logits = logits / self.temperature
        return softmax(logits if self.bias is None else logits + self.bias)

    @property
    def is_symmetric(self) -> bool:
        """Whether all scorers count alike, so that their order does not matter."""
        same = all(len(np.unique(values)) <= 1 for values in (self.weights, self.temperatures))
        return same and (self.coefficients is None or bool((self.coefficients == self.coefficients[:1]).all()))

    def reordered(self, order: Sequence[int]) -> "Blend":
        """Return the same blend for scorers that come in another order: ``order[i]`` is where scorer i stands here."""
        positions = list(order)
        return replace(
            self,
            weights=self.weights[positions],
            temperatures=self.temperatures[positions],
            coefficients=None if self.coefficients is None else self.coefficients[positions],
        )

    def without(self, absent: Sequence[int]) -> "Blend":
        """Return the blend of the other scorers, their weights scaled up to the same total.

        The matrices of a stack are scaled by what its mean exponents are scaled by. Those may be negative or near 0, so
        that the rest of a stack can be far more confident than the whole: fit a stack anew on the scorers there are.

        Parameters
        ----------
        absent : sequence of int
            Positions of the scorers that are missing.

        Raises
        ------
        InputError
            If those that remain have no weight.
        """
        kept = [position for position in range(self.n_scorers) if position not in set(absent)]
        remaining = float(self.weights[kept].sum())
        scale = float(self.weights.sum()) / remaining if remaining > 0 else math.inf
        if not math.isfinite(scale):
            raise InputError(
                f"scorers {sorted(set(absent))} are missing and the other {len(kept)} have no weight; "
                "fit a blend without the missing ones"
            )
        try:
            return replace(
                self,
                weights=self.weights[kept] * scale,
                temperatures=self.temperatures[kept],
                coefficients=None if self.coefficients is None else self.coefficients[kept] * scale,
            )
        except ConfigError as error:
            missing = sorted(set(absent))
            raise InputError(f"scorers {missing} are missing and the others cannot stand in: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON types; ``float`` round-trips exactly."""
        return {
            "pool": self.pool,
            "weights": self.weights.tolist(),
            "temperatures": self.temperatures.tolist(),
            "temperature": float(self.temperature),
            "bias": None if self.bias is None else self.bias.tolist(),
            "coefficients": None if self.coefficients is None else self.coefficients.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Blend":
        """Return the blend that `to_dict` described; values that cannot be raise ConfigError."""
        arrays = dict(values)
        try:
            for name in ("weights", "temperatures", "bias", "coefficients"):
                arrays[name] = None if values[name] is None else np.asarray(values[name], dtype=np.float64)
            return cls(**arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"these are not the values of a blend: {error}") from error


def apply_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Return ``softmax(log p / temperature)`` (Guo et al. 2017, arXiv:1706.04599); 1 changes nothing."""
    return probabilities if temperature == 1 else softmax(log_probabilities(probabilities), temperature)
