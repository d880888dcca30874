"""What a caller may ask of a run, checked once."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeAlias, TypedDict, Unpack, get_args

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import suggest

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
    """How rows are scored, beyond which scorers and which rows.

    Parameters
    ----------
    run_dir : str or Path, optional
        Folder of the journal: finished chunks are kept there, and a rerun computes only what is missing.
    rescore : bool
        Score anew what another configuration of a scorer has scored in `run_dir`, instead of refusing.
    retry_failed : bool
        Score all rows again that failed in an earlier run in `run_dir`. Without it only those are that had run out of
        memory; what gave NaN would do so again.
    time_budget_s : float, optional
        Seconds from the call until the result must be there. What is optional is dropped in this order: passes with
        exchanged responses, least close rows first; then rows of the scorers with the lower weights, rows on which
        the others are surest first. Scorers stop between batches; a call that has not returned a tenth of the budget
        later (half a second at least, five at most) is left behind, and its scorer and GPU are lost until it returns.
    on_failure : {"stop", "reweight"}
        Whether a failing scorer ends the run, or the others finish without it.
    max_failed_rows : float
        Largest share of a scorer's rows that may fail (no logits, NaN, infinite) before the scorer counts as failed.
    swap : {"off", "all", "adaptive"}
        Whether rows are scored a second time with their responses exchanged: none, all, or those closest to call.
    swap_share : float
        Share of the rows that ``adaptive`` takes.
    swap_space : {"probability", "log"}
        Where the two passes are averaged; logarithms (a geometric mean) had the lower log loss (benchmarks/swap.py).
    """

    run_dir: str | Path | None = None
    rescore: bool = False
    retry_failed: bool = False
    time_budget_s: float | None = None
    on_failure: OnFailure = "stop"
    max_failed_rows: float = 0.01
    swap: Swap = "off"
    swap_share: float = 0.5
    swap_space: Space = "log"

    def __post_init__(self) -> None:
        for name, known in (("on_failure", OnFailure), ("swap", Swap), ("swap_space", Space)):
            if getattr(self, name) not in get_args(known):
                listed = ", ".join(map(repr, get_args(known)))
                raise ConfigError(f"{name} must be one of {listed}, got {getattr(self, name)!r}")
        for name in ("max_failed_rows", "swap_share"):
            share = getattr(self, name)
            if not _is_number(share) or not 0 <= share <= 1:
                raise ConfigError(f"{name} is a share and must lie between 0 and 1, got {share!r}")
        budget_s = self.time_budget_s
        if budget_s is not None and (not _is_number(budget_s) or not 0 < budget_s < math.inf):
            raise ConfigError(f"time_budget_s must be a positive number of seconds, got {budget_s!r}")
        for name in ("rescore", "retry_failed"):
            if getattr(self, name) and self.run_dir is None:
                raise ConfigError(f"{name}=True concerns what a run_dir holds; pass run_dir= (--run-dir), too")

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
                raise ConfigError(f"a run has no option {name!r}{suggest(name, RunKeywords.__annotations__)}")
        return cls(**keywords)

    @property
    def swaps_later(self) -> bool:
        """Whether exchanged passes follow when all forward ones are done: they are chosen by them, or optional."""
        return self.swap == "adaptive" or (self.swap == "all" and self.time_budget_s is not None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
