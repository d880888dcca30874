"""What a caller may ask of a run: every option is declared here, and checked once.

An option is a field of `RunOptions`; its flag follows from the field. Beside it belong a line in `RunKeywords`, for
type checkers, and a paragraph in the docstring of `lmsys_ensemble.Ensemble.predict`; tests compare all three.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self, TypeAlias, TypedDict, Unpack, cast, get_args

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.flags import flag, spell

OnFailure: TypeAlias = Literal["stop", "reweight"]
Swap: TypeAlias = Literal["off", "all", "adaptive"]
Space: TypeAlias = Literal["probability", "log"]


class RunKeywords(TypedDict, total=False):
    """The keywords that make `RunOptions`, for type checkers."""

    run_dir: str | Path | None
    rescore: bool
    retry_failed: bool
    time_budget_s: float | None
    on_failure: OnFailure
    max_failed_rows: float
    swap: Swap
    swap_share: float
    swap_space: Space


@dataclass(frozen=True)
class RunOptions:
    """How rows are scored, beyond which scorers and which rows; `lmsys_ensemble.Ensemble.predict` explains each option.

    Raises
    ------
    ConfigError
        If an option is wrong.
    """

    run_dir: str | Path | None = field(
        default=None, metadata=flag("keep finished work there; run the same command again to resume", "DIR")
    )
    rescore: bool = field(default=False, metadata=flag("score anew what other settings have scored in --run-dir"))
    retry_failed: bool = field(
        default=False,
        metadata=flag("score all rows in --run-dir again that failed; default: those that had run out of memory"),
    )
    time_budget_s: float | None = field(
        default=None, metadata=flag("end in time: drop swapped passes, then the surest rows", "SECONDS")
    )
    on_failure: OnFailure = field(
        default="stop",
        metadata=flag("when a scorer fails: stop (default), or finish with the others and say so"),
    )
    max_failed_rows: float = field(
        default=0.01,
        metadata=flag("share of a scorer's rows that may fail before it counts as failed; default: 0.01", "SHARE"),
    )
    swap: Swap = field(
        default="off",
        metadata=flag("score rows with the responses swapped, too: none (default), all, or those closest to call"),
    )
    swap_share: float = field(default=0.5, metadata=flag("share of rows for adaptive; default: 0.5", "SHARE"))
    swap_space: Space = field(
        default="log",
        metadata=flag("where the two passes are averaged: logarithms of probabilities (default), or probabilities"),
    )

    def __post_init__(self) -> None:
        for name, known in (("on_failure", OnFailure), ("swap", Swap), ("swap_space", Space)):
            if getattr(self, name) not in get_args(known):
                listed = ", ".join(map(repr, get_args(known)))
                raise ConfigError(f"{spell(name)} must be one of {listed}, got {getattr(self, name)!r}")
        for name in ("max_failed_rows", "swap_share"):
            share = getattr(self, name)
            if not _is_number(share) or not 0 <= share <= 1:
                raise ConfigError(f"{spell(name)} is a share and must lie between 0 and 1, got {share!r}")
        budget_s = self.time_budget_s
        if budget_s is not None and (not _is_number(budget_s) or not 0 < budget_s < math.inf):
            raise ConfigError(f"{spell('time_budget_s')} must be a positive number of seconds, got {budget_s!r}")
        for name in ("rescore", "retry_failed"):
            if getattr(self, name) and self.run_dir is None:
                raise ConfigError(
                    f"{spell(f'{name}=True')} concerns what a run directory holds; pass {spell('run_dir=')}, too"
                )

    @classmethod
    def of(cls, **keywords: Unpack[RunKeywords]) -> Self:
        """Return the options that keywords ask for.

        Raises
        ------
        ConfigError
            If one is wrong or unknown; misspelt ones get a suggestion.
        """
        for name in keywords:
            if name not in RunKeywords.__annotations__:
                from lmsys_ensemble.settings import (
                    suggest,  # takes a while to import, and the command line reads options
                )

                raise ConfigError(f"a run has no option {name!r}{suggest(name, RunKeywords.__annotations__)}")
        return cls(**keywords)

    def keywords(self) -> RunKeywords:
        """Return the keywords from which `of` makes these options."""
        return cast(RunKeywords, asdict(self))

    @property
    def swaps_later(self) -> bool:
        """Whether swapped passes wait for all original ones, which choose them or come first when time is short."""
        return self.swap == "adaptive" or (self.swap == "all" and self.time_budget_s is not None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
