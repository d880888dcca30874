"""The commands and their options, as `argparse` takes them."""

import argparse

from lmsys_ensemble._version import __version__
from lmsys_ensemble.arguments import CommandParser
from lmsys_ensemble.flags import add_flags, seconds
from lmsys_ensemble.runtime.options import RunOptions


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser: argparse.ArgumentParser = CommandParser(
        prog="lmsys-ensemble",
        description="Probabilities of 'A wins, B wins, tie' from several LLM classifiers at once.",
        epilog="'lmsys-ensemble COMMAND --help' tells a command's options. Exit codes: 0 all went well; 1 the work "
        "failed; 2 arguments, configuration or data are wrong; 3 time was up and rows lack something; 130 Ctrl-C; "
        "143 SIGTERM.",
    )
    parser.add_argument("--version", action="version", version=f"lmsys-ensemble {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    submit = _command(commands, "submit", "predict a test file and write a checked submission")
    _add_config(submit)
    submit.add_argument("--test", required=True, metavar="FILE", help=f"battles, {_TABLES}")
    submit.add_argument("--out", default="submission.csv", metavar="FILE", help="default: submission.csv")
    submit.add_argument("--sample", metavar="FILE", help="sample submission that ids and columns must match")
    _add_run_options(submit)

    predict = _command(commands, "predict", "predict a file of battles")
    _add_config(predict)
    predict.add_argument("--input", required=True, metavar="FILE", help=f"battles, {_TABLES}")
    predict.add_argument("--output", required=True, metavar="FILE", help=f"{_TABLES}, by suffix")
    _add_run_options(predict)

    evaluate = _command(commands, "evaluate", "measure log loss and accuracy on labelled battles")
    _add_config(evaluate)
    evaluate.add_argument("--input", required=True, metavar="FILE", help=f"labelled battles, {_TABLES}")
    evaluate.add_argument(
        "--by", metavar="COLUMN", help="measure its values apart; default: source, where there is one"
    )
    evaluate.add_argument("--swap", action="store_true", help="measure consistency with the responses exchanged, too")

    _add_blend(commands)
    _add_report(commands)

    plan = _command(commands, "plan", "say how long a run will take, and whether it fits, before it starts")
    _add_config(plan)
    plan.add_argument("--test", required=True, metavar="FILE", help=f"battles, {_TABLES}")
    plan.add_argument(
        "--devices", metavar="NxNAME", help="estimate for other devices by arithmetic, as in 2xT4; default: time these"
    )
    plan.add_argument("--budget", type=seconds, metavar="SECONDS", help="say whether the run ends in time")
    plan.add_argument(
        "--rows-timed", type=int, metavar="N",
        help="rows that are timed; default: 64, or what fits into a tenth of the run; for few rows none, by arithmetic",
    )  # fmt: skip

    train = _command(commands, "train", "train a LoRA adapter and a head from a recipe")
    train.add_argument(
        "recipe", metavar="RECIPE", help="YAML file, such as models/smollm2-135m/train.yaml of the repository"
    )
    train.add_argument("--output", required=True, metavar="FOLDER", help="where adapter, head and recipe go")
    train.add_argument("--overwrite", action="store_true", help="replace what an earlier training left in --output")
    train.add_argument("--data", metavar="FOLDER", help="where the recipe's data files lie; default: beside the recipe")
    train.add_argument("--device", default="auto", help="cpu, cuda:0, ... or auto (default)")

    validate = _command(commands, "validate", "check a configuration and a data file without loading a model")
    _add_config(validate)
    validate.add_argument("--input", metavar="FILE", help="battles, with or without labels")

    models = _command(commands, "models", "list, fetch or verify the bundled base models")
    models.add_argument("action", choices=["list", "pull", "verify"])
    models.add_argument("names", nargs="*", metavar="NAME", help="default: all")

    runs = _command(commands, "runs", "tell what a run has finished, how fast, and what failed")
    runs.add_argument("action", choices=["show"])
    runs.add_argument("folder", metavar="DIR", help="run directory; the run may be going on")

    _add_import(commands)
    return parser


def _add_run_options(command: argparse.ArgumentParser) -> None:
    add_flags(command, RunOptions)
    command.add_argument(
        "--devices", nargs="+", metavar="DEVICE", help="cpu, cuda:0...; one named twice gets two workers; default: all"
    )


def _add_blend(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _command(commands, "blend", "fit a blend on files of predictions and labels, or apply one")
    command.description = (
        "Blend the predictions of any systems, from files alone. With --labels, fit a blender, write it to --out and "
        "say what was chosen and why. With --apply, use a fitted one and write the blended predictions to --out."
    )
    _add_probabilities(command)
    command.add_argument("--labels", metavar="FILE", help=f"fit on these: {_LABELS_HELP}")
    command.add_argument(
        "--apply", metavar="BLENDER",
        help="use this fitted blender (JSON); files whose names differ from those of fitting are given as NAME=FILE",
    )  # fmt: skip
    command.add_argument(
        "--out", required=True, metavar="FILE",
        help="with --labels the blender (.json), with --apply the predictions",
    )  # fmt: skip
    command.add_argument(
        "--method", choices=["auto", "equal", "greedy", "linear", "log", "stack"],
        help="default: auto, the simplest that cross-fitting cannot tell from the best",
    )  # fmt: skip
    command.add_argument(
        "--calibration", metavar="PARTS",
        help="none, or before, after and bias joined by +, e.g. before+after; default: the method's own, auto chooses",
    )  # fmt: skip
    _add_groups(command)
    command.add_argument("--predict-out", metavar="FILE", help="write the new blender's predictions, too")


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _command(commands, "report", "write one offline HTML page on predictions and their blend")
    _add_probabilities(command)
    command.add_argument("--labels", required=True, metavar="FILE", help=_LABELS_HELP)
    command.add_argument("--battles", metavar="FILE", help="texts, for lengths, turns and the worst rows; by id")
    command.add_argument(
        "--swapped", nargs="+", metavar="[NAME=]FILE",
        help="predictions for the battles with the responses exchanged; without names in the order of --probabilities",
    )  # fmt: skip
    command.add_argument(
        "--blender", metavar="FILE", help="a blender (JSON) to report on; default: one fitted with method auto"
    )
    command.add_argument(
        "--fitted-elsewhere", action="store_true",
        help="the blender has not seen these rows, so measure it as it is instead of fitting it anew on folds",
    )  # fmt: skip
    _add_groups(command)
    command.add_argument("--worst", type=int, default=10, metavar="N", help="how many of the worst rows; default: 10")
    command.add_argument(
        "--worst-out", metavar="FILE", help="write the worst rows as a table, too; texts cannot act as formulas"
    )
    command.add_argument("--out", required=True, metavar="FILE", help="the page, .html")


def _add_import(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _command(commands, "import-checkpoint", "convert a LoRA checkpoint to safetensors with a recipe")
    command.add_argument(
        "source", metavar="SOURCE", help="PEFT folder, or a state dict (.pth, .pt, .bin, .safetensors)"
    )
    command.add_argument("--output", required=True, metavar="FOLDER", help="new folder")
    command.add_argument("--base", required=True, metavar="MODEL", help="base model: a folder or a name on the Hub")
    command.add_argument("--revision", metavar="COMMIT", help="commit of a base model on the Hub")
    command.add_argument("--template", required=True, help="kaggle-gemma, kaggle-llama or turns")
    command.add_argument("--max-tokens", required=True, type=int, metavar="N", help="longest sequence in training")
    command.add_argument(
        "--truncation", default="tail", help="tail (default, as the public notebooks), per_field, balanced"
    )
    command.add_argument("--no-bos", action="store_true", help="it was trained without a beginning token")
    command.add_argument("--no-eos", action="store_true", help="it was trained without an end token")
    command.add_argument(
        "--pad-token-id", type=int, metavar="ID", help="default: as the base model's configuration says"
    )
    command.add_argument("--no-soft-capping", action="store_true", help="Gemma-2 that was trained without soft-capping")
    command.add_argument("--lora-alpha", type=float, metavar="ALPHA", help="needed for a bare state dict")
    command.add_argument(
        "--classes",
        nargs="+",
        default=["model_a", "model_b", "tie"],
        metavar="CLASS",
        help="label order in training; default: model_a model_b tie",
    )
    command.add_argument("--no-golden", action="store_true", help="do not run the model to make golden rows")
    command.add_argument("--device", default="cpu", help="where to run it for the golden rows; default: cpu")


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.add_argument("--json", action="store_true", help="print a machine's summary on standard output")
    command.add_argument("--verbose", action="store_true", help="say what is being done")
    command.set_defaults(run=name.replace("-", "_"))
    return command


_TABLES = "CSV, TSV, JSON lines (each also .gz) or Parquet"
_LABELS_HELP = "id and winner_model_a, winner_model_b, winner_tie (one-hot or soft), or id and winner"


def _add_probabilities(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--probabilities", required=True, nargs="+", metavar="[NAME=]FILE",
        help=f"one file a system, {_TABLES}: id, winner_model_a, winner_model_b, winner_tie; rows are matched by id, "
        "systems by name (without one, the file's)",
    )  # fmt: skip


def _add_groups(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--groups", metavar="COLUMN",
        help="column of the labels' file: rows of one group (a prompt) stay together; default: group, if there is one",
    )  # fmt: skip


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="CONFIG", help="ensemble's YAML file or name; default: the bundled one")
