"""The options of commands that make models: from labelled battles to what scores."""

from dataclasses import dataclass, field
from typing import Literal

from lmsys_ensemble.commands.options import TABLES, CommandOptions
from lmsys_ensemble.flags import flag, positional


@dataclass(frozen=True, kw_only=True)
class CleanOptions(CommandOptions):
    """Options of ``clean``."""

    input: tuple[str, ...] = field(
        metadata=flag(
            f"battles, {TABLES}; several are merged. SOURCE reads a public format: lmsys, lmsys-55k, lmsys-33k, wsdm, "
            "ultrafeedback, hh-rlhf",
            "[SOURCE=]FILE",
        )
    )
    output: str = field(metadata=flag(f"{TABLES}, by suffix", "FILE"))
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

    input: str = field(metadata=flag(f"battles without labels, {TABLES}", "FILE"))
    output: str = field(metadata=flag(f"{TABLES}, by suffix", "FILE"))
    probabilities: tuple[str, ...] | None = field(
        default=None,
        metadata=flag(
            f"one file per system, {TABLES}: id, winner_model_a, winner_model_b, winner_tie; rows are matched by id, "
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
    output: str | None = field(
        default=None, metadata=flag("where adapter, head and recipe go; needed, but for --check", "FOLDER")
    )
    check: bool = field(
        default=False,
        metadata=flag("train nothing: say what is wrong, and how many rows, tokens and steps there will be"),
    )
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
        metadata=flag(f"labelled battles, {TABLES}; SOURCE reads a public format, as for clean", "[SOURCE=]FILE")
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
            f"labelled battles that no adapter was trained on, {TABLES}: measures the result against the average of "
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
            f"labelled battles that the adapter was not trained on, {TABLES}: measures the merged model against the "
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
            f"battles like those that will be scored, {TABLES}: round so that layers' outputs on some of them change "
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
