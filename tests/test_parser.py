"""The commands and their options."""

import pytest

from lmsys_ensemble import commands
from lmsys_ensemble.parser import make_parser

PREDICT = ("predict", "--input", "a.csv", "--output", "b.csv")
LEAST = {
    "submit": ("--test", "a.csv"),
    "predict": PREDICT[1:],
    "evaluate": ("--input", "a.csv"),
    "blend": ("--probabilities", "a.csv", "--out", "b.json"),
    "report": ("--probabilities", "a.csv", "--labels", "y.csv", "--out", "r.html"),
    "plan": ("--test", "a.csv"),
    "train": ("recipe.yaml", "--output", "out"),
    "validate": (),
    "models": ("list",),
    "runs": ("show", "run"),
    "import-checkpoint": ("a.pth", "--output", "out", "--base", "b", "--template", "turns", "--max-tokens", "8"),
}
"""The fewest arguments of every command."""


@pytest.mark.parametrize("name", LEAST)
def test_every_command_leads_to_a_function_and_takes_what_all_take(name):
    options = make_parser().parse_args([name, *LEAST[name]])
    assert callable(getattr(commands, options.run))
    assert (options.json, options.verbose) == (False, False)
    assert make_parser().parse_args([name, *LEAST[name], "--json"]).json


def test_these_are_all_commands():
    (commands_of_parser,) = [action for action in make_parser()._actions if action.metavar == "COMMAND"]
    assert set(commands_of_parser.choices) == set(LEAST)
    assert {name.replace("-", "_") for name in LEAST} == set(commands.__all__) - {"Result"}


@pytest.mark.parametrize("name", [name for name in LEAST if LEAST[name]])
def test_without_its_arguments_a_command_is_a_usage_error(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        make_parser().parse_args([name])
    assert stopped.value.code == 2
    assert name in capsys.readouterr().err


def test_a_run_by_default_stops_at_a_failure_keeps_nothing_and_swaps_nothing():
    options = make_parser().parse_args(PREDICT)
    assert (options.config, options.devices, options.run_dir, options.time_budget) == (None, None, None, None)
    assert (options.on_failure, options.swap, options.swap_share) == ("stop", "off", 0.5)
    assert (options.rescore, options.retry_failed) == (False, False)


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
