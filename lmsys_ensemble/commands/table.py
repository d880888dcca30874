"""The commands by name: what each is asked for, and what runs it. A command's module is imported when it is run."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lmsys_ensemble._version import __version__
from lmsys_ensemble.arguments import CommandParser
from lmsys_ensemble.commands.options import (
    BlendOptions,
    CommandOptions,
    EvaluateOptions,
    ModelsOptions,
    PlanOptions,
    PredictOptions,
    ReportOptions,
    RunsOptions,
    ScorersOptions,
    SubmitOptions,
    ValidateOptions,
)
from lmsys_ensemble.commands.training_options import (
    CleanOptions,
    FitLexicalOptions,
    ImportOptions,
    MergeAdaptersOptions,
    MergeOptions,
    PseudoLabelOptions,
    TrainOptions,
)
from lmsys_ensemble.flags import add_flags, read_flags

if TYPE_CHECKING:
    from lmsys_ensemble.commands.output import Result

T = TypeVar("T", bound=CommandOptions)


@dataclass(frozen=True)
class Command:
    """A command: its name, one line on it, its options, and a function that imports what runs it."""

    name: str
    summary: str
    options: type[CommandOptions]
    load: "Callable[[], Callable[[Any], Result]]"
    description: str

    def add_to(self, commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
        """Add the command's parser."""
        parser = commands.add_parser(self.name, help=self.summary, description=self.description)
        parser.set_defaults(command=self.name)
        add_flags(parser, self.options)

    def read(self, arguments: argparse.Namespace) -> CommandOptions:
        """Return the command's options.

        Raises
        ------
        ConfigError
            If an option of a run is wrong.
        """
        return read_flags(self.options, arguments)


def _command(
    name: str, summary: str, options: type[T], load: "Callable[[], Callable[[T], Result]]", description: str = ""
) -> Command:
    """Return a command; type checkers compare its options with those that its function takes."""
    return Command(name, summary, options, load, description or f"{summary[0].upper()}{summary[1:]}.")


def _submit() -> "Callable[[SubmitOptions], Result]":
    from lmsys_ensemble.commands.scoring import submit

    return submit


def _predict() -> "Callable[[PredictOptions], Result]":
    from lmsys_ensemble.commands.scoring import predict

    return predict


def _evaluate() -> "Callable[[EvaluateOptions], Result]":
    from lmsys_ensemble.commands.scoring import evaluate

    return evaluate


def _blend() -> "Callable[[BlendOptions], Result]":
    from lmsys_ensemble.commands.blending import blend

    return blend


def _report() -> "Callable[[ReportOptions], Result]":
    from lmsys_ensemble.commands.blending import report

    return report


def _plan() -> "Callable[[PlanOptions], Result]":
    from lmsys_ensemble.commands.planning import plan

    return plan


def _clean() -> "Callable[[CleanOptions], Result]":
    from lmsys_ensemble.commands.cleaning import clean

    return clean


def _pseudo_label() -> "Callable[[PseudoLabelOptions], Result]":
    from lmsys_ensemble.commands.labelling import pseudo_label

    return pseudo_label


def _train() -> "Callable[[TrainOptions], Result]":
    from lmsys_ensemble.commands.preparation import train

    return train


def _fit_lexical() -> "Callable[[FitLexicalOptions], Result]":
    from lmsys_ensemble.commands.lexical import fit_lexical

    return fit_lexical


def _validate() -> "Callable[[ValidateOptions], Result]":
    from lmsys_ensemble.commands.preparation import validate

    return validate


def _models() -> "Callable[[ModelsOptions], Result]":
    from lmsys_ensemble.commands.preparation import models

    return models


def _scorers() -> "Callable[[ScorersOptions], Result]":
    from lmsys_ensemble.commands.scorers import scorers

    return scorers


def _runs() -> "Callable[[RunsOptions], Result]":
    from lmsys_ensemble.commands.runs import runs

    return runs


def _import_checkpoint() -> "Callable[[ImportOptions], Result]":
    from lmsys_ensemble.commands.preparation import import_checkpoint

    return import_checkpoint


def _merge_adapters() -> "Callable[[MergeAdaptersOptions], Result]":
    from lmsys_ensemble.commands.merging import merge_adapters

    return merge_adapters


def _merge() -> "Callable[[MergeOptions], Result]":
    from lmsys_ensemble.commands.merging import merge

    return merge


_LISTED = (
    _command("submit", "predict a test file and write a checked submission", SubmitOptions, _submit),
    _command("predict", "predict a file of battles", PredictOptions, _predict),
    _command("evaluate", "measure log loss and accuracy on labelled battles", EvaluateOptions, _evaluate),
    _command(
        "blend", "fit a blend on files of predictions and labels, or apply one", BlendOptions, _blend,
        "Blend the predictions of any systems, from files alone. With --labels, fit a blender, write it to --out and "
        "say what was chosen and why. With --apply, use a fitted one and write the blended predictions to --out.",
    ),
    _command("report", "write one offline HTML page on predictions and their blend", ReportOptions, _report),
    _command("plan", "say how long a run will take, and whether it fits, before it starts", PlanOptions, _plan),
    _command(
        "clean", "clean battles for training, and say what was done with which rows", CleanOptions, _clean,
        "Drop or relabel rows that harm training or spoil what is measured: empty and identical responses, copies, "
        "rows of the evaluation set. Rows that share a prompt get one group. Nothing is done silently.",
    ),
    _command(
        "pseudo-label", "label battles with what models say of them, for training", PseudoLabelOptions, _pseudo_label,
        "Give unlabelled battles the probabilities of models as soft labels, in a table that training reads: the "
        "column source says pseudo, pseudo_confidence how sure the models are, labelled_by which they were. With "
        "--config an ensemble scores the battles; for swapped passes or a time budget, predict first and give the file "
        "to --probabilities.",
    ),
    _command("train", "train a LoRA adapter and a head from a recipe", TrainOptions, _train),
    _command(
        "fit-lexical", "fit the baseline that needs no language model, in seconds", FitLexicalOptions, _fit_lexical,
        "Fit a model of what can be counted in two responses (length, format, refusals, overlap, script, words) to "
        "labelled battles, measure it out of fold, and write a folder that predict and evaluate take as a scorer of "
        "type lexical. Every language model must beat it.",
    ),
    _command(
        "merge-adapters", "merge LoRA adapters of one base model into one, heads included", MergeAdaptersOptions,
        _merge_adapters,
    ),
    _command(
        "merge", "merge an adapter into its base model and write a plain transformers folder", MergeOptions, _merge
    ),
    _command(
        "validate", "check a configuration and a data file without loading a model", ValidateOptions, _validate
    ),
    _command("models", "list, fetch or verify the bundled base models", ModelsOptions, _models),
    _command(
        "scorers", "list the types of scorers, those of other packages included", ScorersOptions, _scorers,
        "List what a configuration file may name as type of a scorer, with one line on each; nothing is imported.",
    ),
    _command("runs", "tell what a run has finished, how fast, and what failed", RunsOptions, _runs),
    _command(
        "import-checkpoint", "convert a LoRA checkpoint to safetensors with a recipe", ImportOptions,
        _import_checkpoint,
    ),
)  # fmt: skip

COMMANDS = {command.name: command for command in _LISTED}
"""All commands, in the order of ``--help``."""


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
    for command in COMMANDS.values():
        command.add_to(commands)
    return parser
