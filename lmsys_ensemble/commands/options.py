"""What each command is asked for: a dataclass per command, whose fields are its arguments (see `lmsys_ensemble.flags`).

Nothing heavy is imported here, so that ``--help`` answers at once.
"""

import time
from dataclasses import dataclass, field
from typing import Literal

from lmsys_ensemble.flags import flag, positional
from lmsys_ensemble.runtime.options import RunOptions

TABLES = "CSV, TSV, JSON lines (each also .gz) or Parquet"
_LABELS = "id and winner_model_a, winner_model_b, winner_tie (one-hot or soft), or id and winner"
_CONFIG = flag("ensemble's YAML file or name; default: the bundled one", "CONFIG")
_PROBABILITIES = flag(
    f"one file per system, {TABLES}: id, winner_model_a, winner_model_b, winner_tie; rows are matched by id, systems "
    "by name (without one, the file's)",
    "[NAME=]FILE",
)
_GROUPS = flag(
    "column of the labels' file: rows of one group (a prompt) stay together; default: group, if there is one", "COLUMN"
)
_DEVICES = flag("cpu, cuda:0...; one named twice gets two workers; default: all", "DEVICE")


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What every command takes."""

    json: bool = field(default=False, metadata=flag("print a machine's summary on standard output"))
    verbose: bool = field(default=False, metadata=flag("say what is being done"))


@dataclass(frozen=True, kw_only=True)
class SubmitOptions(CommandOptions):
    """Options of ``submit``."""

    config: str | None = field(default=None, metadata=_CONFIG)
    test: str = field(metadata=flag(f"battles, {TABLES}", "FILE"))
    out: str = field(default="submission.csv", metadata=flag("default: submission.csv", "FILE"))
    sample: str | None = field(default=None, metadata=flag("sample submission that ids and columns must match", "FILE"))
    run: RunOptions
    devices: tuple[str, ...] | None = field(default=None, metadata=_DEVICES)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(CommandOptions):
    """Options of ``predict``."""

    config: str | None = field(default=None, metadata=_CONFIG)
    input: str = field(metadata=flag(f"battles, {TABLES}", "FILE"))
    output: str = field(metadata=flag(f"{TABLES}, by suffix", "FILE"))
    run: RunOptions
    devices: tuple[str, ...] | None = field(default=None, metadata=_DEVICES)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(CommandOptions):
    """Options of ``evaluate``."""

    config: str | None = field(default=None, metadata=_CONFIG)
    input: str = field(metadata=flag(f"labelled battles, {TABLES}", "FILE"))
    by: str | None = field(
        default=None,
        metadata=flag(
            "measure its values apart; script and language are told from the texts where there is no such column; "
            "default: source, where there is one",
            "COLUMN",
        ),
    )
    swap: bool = field(default=False, metadata=flag("measure consistency with the responses swapped, too"))
    run_dir: str | None = field(default=None, metadata=flag("keep finished work there, and resume from it", "DIR"))


@dataclass(frozen=True, kw_only=True)
class BlendOptions(CommandOptions):
    """Options of ``blend``."""

    probabilities: tuple[str, ...] = field(metadata=_PROBABILITIES)
    labels: str | None = field(default=None, metadata=flag(f"fit on these: {_LABELS}", "FILE"))
    apply: str | None = field(
        default=None,
        metadata=flag(
            "use this fitted blender (JSON); files whose names differ from those of fitting are given as NAME=FILE",
            "BLENDER",
        ),
    )
    out: str = field(metadata=flag("with --labels the blender (.json), with --apply the predictions", "FILE"))
    method: Literal["auto", "equal", "greedy", "linear", "log", "stack"] | None = field(
        default=None, metadata=flag("default: auto, the simplest that cross-fitting cannot tell from the best")
    )
    calibration: str | None = field(
        default=None,
        metadata=flag(
            "none, or before, after and bias joined by +, e.g. before+after; default: the method's own, auto chooses",
            "PARTS",
        ),
    )
    groups: str | None = field(default=None, metadata=_GROUPS)
    predict_out: str | None = field(default=None, metadata=flag("write the new blender's predictions, too", "FILE"))


@dataclass(frozen=True, kw_only=True)
class ReportOptions(CommandOptions):
    """Options of ``report``."""

    probabilities: tuple[str, ...] = field(metadata=_PROBABILITIES)
    labels: str = field(metadata=flag(_LABELS, "FILE"))
    battles: str | None = field(
        default=None, metadata=flag("texts, for lengths, turns and the worst rows; by id", "FILE")
    )
    swapped: tuple[str, ...] | None = field(
        default=None,
        metadata=flag(
            "predictions for the battles with the responses swapped; without names in the order of --probabilities",
            "[NAME=]FILE",
        ),
    )
    blender: str | None = field(
        default=None, metadata=flag("a blender (JSON) to report on; default: one fitted with method auto", "FILE")
    )
    fitted_elsewhere: bool = field(
        default=False,
        metadata=flag(
            "the blender has not seen these rows, so measure it as it is instead of fitting it anew on folds"
        ),
    )
    groups: str | None = field(default=None, metadata=_GROUPS)
    worst: int = field(default=10, metadata=flag("how many of the worst rows; default: 10", "N"))
    worst_out: str | None = field(
        default=None, metadata=flag("write the worst rows as a table, too; texts cannot act as formulas", "FILE")
    )
    out: str = field(metadata=flag("the page, .html", "FILE"))


@dataclass(frozen=True, kw_only=True)
class PlanOptions(CommandOptions):
    """Options of ``plan``."""

    config: str | None = field(default=None, metadata=_CONFIG)
    test: str = field(metadata=flag(f"battles, {TABLES}", "FILE"))
    devices: str | None = field(
        default=None,
        metadata=flag("estimate for other devices by arithmetic, as in 2xT4; default: time these", "NxNAME"),
    )
    budget_s: float | None = field(default=None, metadata=flag("say whether the run ends in time", "SECONDS"))
    rows_timed: int | None = field(
        default=None,
        metadata=flag(
            "rows that are timed; default: 64, or what fits into a tenth of the run; for few rows none, by arithmetic",
            "N",
        ),
    )
    started: float = field(default_factory=time.perf_counter)
    """When the options were read, before anything heavy was imported."""


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(CommandOptions):
    """Options of ``validate``."""

    config: str | None = field(default=None, metadata=_CONFIG)
    input: str | None = field(default=None, metadata=flag("battles, with or without labels", "FILE"))


@dataclass(frozen=True, kw_only=True)
class ModelsOptions(CommandOptions):
    """Options of ``models``."""

    action: Literal["list", "pull", "verify"] = field(metadata=positional(""))
    names: tuple[str, ...] = field(default=(), metadata=positional("default: all that are not optional", "NAME"))


@dataclass(frozen=True, kw_only=True)
class ScorersOptions(CommandOptions):
    """Options of ``scorers``: none but those that all commands take."""


@dataclass(frozen=True, kw_only=True)
class RunsOptions(CommandOptions):
    """Options of ``runs``."""

    action: Literal["show"] = field(metadata=positional(""))
    folder: str = field(metadata=positional("run directory; the run may be going on", "DIR"))
