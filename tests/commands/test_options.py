"""The options of the commands."""

import pytest

from lmsys_ensemble.commands.table import COMMANDS, make_parser
from lmsys_ensemble.runtime.options import RunOptions

PREDICT = ("predict", "--input", "a.csv", "--output", "b.csv")
LEAST = {
    "submit": ("--test", "a.csv"),
    "predict": PREDICT[1:],
    "evaluate": ("--input", "a.csv"),
    "blend": ("--probabilities", "a.csv", "--out", "b.json"),
    "report": ("--probabilities", "a.csv", "--labels", "y.csv", "--out", "r.html"),
    "plan": ("--test", "a.csv"),
    "clean": ("--input", "a.csv", "--output", "b.csv"),
    "pseudo-label": ("--input", "a.csv", "--output", "b.csv"),
    "train": ("recipe.yaml",),
    "fit-lexical": ("--input", "a.csv", "--output", "out"),
    "merge-adapters": ("a", "b", "--output", "out"),
    "merge": ("--adapter", "a", "--output", "out"),
    "validate": (),
    "models": ("list",),
    "scorers": (),
    "runs": ("show", "run"),
    "import-checkpoint": ("a.pth", "--output", "out", "--base", "b", "--template", "turns", "--max-tokens", "8"),
}
"""The fewest arguments of every command."""


def read(name, *arguments):
    return COMMANDS[name].read(make_parser().parse_args([name, *arguments]))


@pytest.mark.parametrize("name", LEAST)
def test_every_command_reads_its_fewest_arguments_and_what_all_take(name):
    options = read(name, *LEAST[name])
    assert (options.json, options.verbose) == (False, False)
    assert read(name, *LEAST[name], "--json").json


def test_these_are_all_commands():
    assert set(COMMANDS) == set(LEAST)


@pytest.mark.parametrize("name", [name for name in LEAST if LEAST[name]])
def test_without_its_arguments_a_command_is_a_usage_error(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        make_parser().parse_args([name])
    assert stopped.value.code == 2
    assert name in capsys.readouterr().err


def test_a_run_by_default_stops_at_a_failure_keeps_nothing_and_swaps_nothing():
    options = read(*PREDICT)
    assert (options.config, options.devices, options.run) == (None, None, RunOptions())
    assert (options.run.run_dir, options.run.time_budget_s) == (None, None)
    assert (options.run.on_failure, options.run.swap, options.run.swap_share) == ("stop", "off", 0.5)
    assert (options.run.rescore, options.run.retry_failed) == (False, False)


@pytest.mark.parametrize(
    "wrong",
    [("--swap", "some"), ("--on-failure", "ignore"), ("--time-budget", "soon"), ("--swap-share", "half")],
    ids=" ".join,
)
def test_what_an_option_cannot_be_is_a_usage_error_that_names_it(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        make_parser().parse_args([*PREDICT, *wrong])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert wrong[0] in said
    assert wrong[1] in said
