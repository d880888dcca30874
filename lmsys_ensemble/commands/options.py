"""What each command is asked for: a dataclass per command, whose fields are its arguments (see `lmsys_ensemble.flags`).

Nothing heavy is imported here, so that ``--help`` answers at once.
"""

import time
from dataclasses import dataclass, field
from typing import Literal

from lmsys_ensemble.flags import flag, positional
from lmsys_ensemble.runtime.options import RunOptions

_TABLES = "CSV, TSV, JSON lines (each also .gz) or Parquet"
_LABELS = "id and winner_model_a, winner_model_b, winner_tie (one-hot or soft), or id and winner"
_CONFIG = flag("ensemble's YAML file or name; default: the bundled one", "CONFIG")
_PROBABILITIES = flag(
    f"one file per system, {_TABLES}: id, winner_model_a, winner_model_b, winner_tie; rows are matched by id, systems "
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
    test: str = field(metadata=flag(f"battles, {_TABLES}", "FILE"))
    out: str = field(default="submission.csv", metadata=flag("default: submission.csv", "FILE"))
    sample: str | None = field(default=None, metadata=flag("sample submission that ids and columns must match", "FILE"))
    run: RunOptions
    devices: tuple[str, ...] | None = field(default=None, metadata=_DEVICES)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(CommandOptions):
    """Options of ``predict``."""

    config: str | None = field(default=None, metadata=_CONFIG)
    input: str = field(metadata=flag(f"battles, {_TABLES}", "FILE"))
    output: str = field(metadata=flag(f"{_TABLES}, by suffix", "FILE"))
    run: RunOptions
    devices: tuple[str, ...] | None = field(default=None, metadata=_DEVICES)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(CommandOptions):
    """Options of ``evaluate``."""

    config: str | None = field(default=None, metadata=_CONFIG)
    input: str = field(metadata=flag(f"labelled battles, {_TABLES}", "FILE"))
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
    test: str = field(metadata=flag(f"battles, {_TABLES}", "FILE"))
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
class CleanOptions(CommandOptions):
    """Options of ``clean``."""

    input: tuple[str, ...] = field(
        metadata=flag(
            f"battles, {_TABLES}; several are merged. SOURCE reads a public format: lmsys, lmsys-55k, lmsys-33k, wsdm, "
            "ultrafeedback, hh-rlhf",
            "[SOURCE=]FILE",
        )
    )
    output: str = field(metadata=flag(f"{_TABLES}, by suffix", "FILE"))
    against: str | None = field(
        default=None, metadata=flag("battles that will be measured on; they are removed", "[SOURCE=]FILE")
    )
    report: str | None = field(default=None, metadata=flag("write what was done with every row, .json", "FILE"))
    task: Literal["three_way", "two_way"] = field(
        default="three_way", metadata=flag("classes of the labels: with ties (default), or without")
    )
    empty: Literal["drop", "tie", "keep"] | None = field(
        default=None, metadata=flag("both responses are null or blank; default: drop")
    )
    identical: Literal["tie", "drop", "keep"] | None = field(
        default=None, metadata=flag("both responses are the same; default: tie")
    )
    duplicates: Literal["battle", "responses", "keep"] | None = field(
        default=None,
        metadata=flag("copies in either order, by prompt and responses (default) or by responses alone"),
    )
    contradictions: Literal["average", "first", "drop"] | None = field(
        default=None,
        metadata=flag("labels of copies that differ: their mean (default), the first copy's, or drop all copies"),
    )
    overlap: Literal["battle", "prompt", "keep"] | None = field(
        default=None,
        metadata=flag("what is removed of --against: the same battles (default), or all rows that share a prompt"),
    )
    similar_prompts: float | None = field(
        default=None,
        metadata=flag("word pairs that two prompts share to be of one group, 0.5 to 1; default: 0.8", "SHARE"),
    )


@dataclass(frozen=True, kw_only=True)
class PseudoLabelOptions(CommandOptions):
    """Options of ``pseudo-label``."""

    input: str = field(metadata=flag(f"battles without labels, {_TABLES}", "FILE"))
    output: str = field(metadata=flag(f"{_TABLES}, by suffix", "FILE"))
    probabilities: tuple[str, ...] | None = field(
        default=None,
        metadata=flag(
            f"one file per system, {_TABLES}: id, winner_model_a, winner_model_b, winner_tie; rows are matched by id, "
            "several systems are averaged (with weights: blend --apply first)",
            "[NAME=]FILE",
        ),
    )
    config: str | None = field(
        default=None, metadata=flag("ensemble that predicts: YAML file or name; default is the bundled one's", "CONFIG")
    )
    against: str | None = field(
        default=None, metadata=flag("battles that will be measured on; they get no labels", "FILE")
    )
    report: str | None = field(default=None, metadata=flag("write what became of every row, .json", "FILE"))
    hard: bool = field(default=False, metadata=flag("one-hot labels of the likeliest class; default: soft"))
    temperature: float | None = field(default=None, metadata=flag("above 1 labels are less confident; default: 1", "T"))
    min_confidence: float | None = field(
        default=None, metadata=flag("drop rows whose likeliest class is less probable; default: 0", "P")
    )
    max_per_class: int | None = field(
        default=None, metadata=flag("keep the N most confident rows of every likeliest class", "N")
    )
    balance: bool = field(default=False, metadata=flag("keep as many rows of every likeliest class as the rarest has"))
    source: str | None = field(
        default=None, metadata=flag("what the column source says, for a recipe to go by; default: pseudo", "NAME")
    )
    run_dir: str | None = field(
        default=None, metadata=flag("with --config: keep finished work there, and resume from it", "DIR")
    )
    devices: tuple[str, ...] | None = field(
        default=None, metadata=flag("with --config: cpu, cuda:0...; default: all", "DEVICE")
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CommandOptions):
    """Options of ``train``."""

    recipe: str = field(
        metadata=positional("YAML file, such as models/smollm2-135m/train.yaml of the repository", "RECIPE")
    )
    output: str = field(metadata=flag("where adapter, head and recipe go", "FOLDER"))
    overwrite: bool = field(default=False, metadata=flag("replace what an earlier training left in --output"))
    resume: bool = field(
        default=False, metadata=flag("go on from the last checkpoint that an interrupted training left in --output")
    )
    folds: int | None = field(
        default=None,
        metadata=flag(
            "train N adapters, each on all folds but its own, and write the out-of-fold predictions; folds that are in "
            "--output already are gone on with",
            "N",
        ),
    )
    fold: int | None = field(
        default=None, metadata=flag("of --folds, only the K-th, from 1; others may run elsewhere", "K")
    )
    cache: str | None = field(
        default=None,
        metadata=flag(
            "where hidden states below the first trained layer are kept for later runs; default: in the user's cache",
            "FOLDER",
        ),
    )
    data: str | None = field(
        default=None, metadata=flag("where the recipe's data files lie; default: beside the recipe", "FOLDER")
    )
    device: str = field(default="auto", metadata=flag("cpu, cuda:0, ... or auto (default)"))


@dataclass(frozen=True, kw_only=True)
class FitLexicalOptions(CommandOptions):
    """Options of ``fit-lexical``."""

    input: tuple[str, ...] = field(
        metadata=flag(f"labelled battles, {_TABLES}; SOURCE reads a public format, as for clean", "[SOURCE=]FILE")
    )
    output: str = field(metadata=flag("where the model goes", "FOLDER"))
    overwrite: bool = field(default=False, metadata=flag("replace what an earlier fit left in --output"))
    task: Literal["three_way", "two_way"] = field(
        default="three_way", metadata=flag("classes of the labels: with ties (default), or without")
    )
    model: Literal["auto", "logistic", "boosted"] = field(
        default="auto",
        metadata=flag("a regression, or boosted trees (needs lightgbm); default: trees where lightgbm is installed"),
    )
    folds: int = field(default=5, metadata=flag("measure it on N folds by prompt; 0: not at all; default: 5", "N"))


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


@dataclass(frozen=True, kw_only=True)
class ImportOptions(CommandOptions):
    """Options of ``import-checkpoint``."""

    source: str = field(metadata=positional("PEFT folder, or a state dict (.pth, .pt, .bin, .safetensors)", "SOURCE"))
    output: str = field(metadata=flag("new folder", "FOLDER"))
    base: str = field(metadata=flag("base model: a folder or a name on the Hub", "MODEL"))
    revision: str | None = field(default=None, metadata=flag("commit of a base model on the Hub", "COMMIT"))
    template: str = field(metadata=flag("kaggle-gemma, kaggle-llama or turns"))
    max_tokens: int = field(metadata=flag("longest sequence in training", "N"))
    truncation: str = field(
        default="tail", metadata=flag("tail (default, as the public notebooks), per_field, balanced")
    )
    no_bos: bool = field(default=False, metadata=flag("it was trained without a beginning token"))
    no_eos: bool = field(default=False, metadata=flag("it was trained without an end token"))
    pad_token_id: int | None = field(
        default=None, metadata=flag("default: as the base model's configuration says", "ID")
    )
    no_soft_capping: bool = field(default=False, metadata=flag("Gemma-2 that was trained without soft-capping"))
    lora_alpha: float | None = field(default=None, metadata=flag("needed for a bare state dict", "ALPHA"))
    classes: tuple[str, ...] = field(
        default=("model_a", "model_b", "tie"),
        metadata=flag("label order in training; default: model_a model_b tie", "CLASS"),
    )
    no_golden: bool = field(default=False, metadata=flag("do not run the model to make golden rows"))
    device: str = field(default="cpu", metadata=flag("where to run it for the golden rows; default: cpu"))


@dataclass(frozen=True, kw_only=True)
class MergeAdaptersOptions(CommandOptions):
    """Options of ``merge-adapters``."""

    adapters: tuple[str, ...] = field(
        metadata=positional("adapters with recipe.json, such as those of folds", "FOLDER")
    )
    output: str = field(metadata=flag("where adapter, head and recipe go", "FOLDER"))
    overwrite: bool = field(default=False, metadata=flag("replace what an earlier merge left in --output"))
    rank: int | None = field(
        default=None,
        metadata=flag("largest rank of the result, by singular values; default: exact, the sum of the ranks", "R"),
    )
    weights: tuple[float, ...] | None = field(
        default=None, metadata=flag("one per adapter; default: all weigh alike", "W")
    )
    input: tuple[str, ...] = field(
        default=(),
        metadata=flag(
            f"labelled battles that no adapter was trained on, {_TABLES}: measures the result against the average of "
            "the adapters' probabilities",
            "FILE",
        ),
    )
    base: str | None = field(default=None, metadata=flag("base model; default: what the first adapter names", "MODEL"))
    device: str = field(default="auto", metadata=flag("cpu, cuda:0, ... or auto (default)"))


@dataclass(frozen=True, kw_only=True)
class MergeOptions(CommandOptions):
    """Options of ``merge``."""

    adapter: str = field(metadata=flag("adapter with recipe.json", "FOLDER"))
    output: str = field(metadata=flag("new folder", "FOLDER"))
    input: tuple[str, ...] = field(
        default=(),
        metadata=flag(
            f"labelled battles that the adapter was not trained on, {_TABLES}: measures the merged model against the "
            "unmerged one",
            "FILE",
        ),
    )
    base: str | None = field(default=None, metadata=flag("base model; default: what the adapter names", "MODEL"))
    quantization: Literal["none", "int8", "w4a16"] = field(
        default="none",
        metadata=flag(
            "round linear layers to 8 or 4 bits, for serving engines that read compressed-tensors; default: none"
        ),
    )
    calibration: tuple[str, ...] = field(
        default=(),
        metadata=flag(
            f"battles like those that will be scored, {_TABLES}: round so that layers' outputs on some of them change "
            "little (GPTQ); default: round to the nearest value",
            "FILE",
        ),
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto",
        metadata=flag(
            "number format of what is not rounded, but for the head, which stays float32; default: the base's"
        ),
    )
    device: str = field(
        default="auto", metadata=flag("where golden rows are scored: cpu, cuda:0, ... or auto (default)")
    )
