"""Every command stands in the table, with the options that its function takes."""

import ast
import inspect
import re
from pathlib import Path
from typing import get_type_hints

import pytest

from lmsys_ensemble import commands
from lmsys_ensemble.cli import main
from lmsys_ensemble.commands import options, training_options
from lmsys_ensemble.commands.options import CommandOptions
from lmsys_ensemble.commands.output import Result
from lmsys_ensemble.commands.table import COMMANDS, make_parser


@pytest.mark.parametrize("name", COMMANDS)
def test_the_function_takes_the_options_of_its_command_and_returns_a_result(name):
    function = COMMANDS[name].load()
    assert function.__name__ == name.replace("-", "_")
    assert get_type_hints(function) == {"options": COMMANDS[name].options, "return": Result}


def test_no_options_are_left_without_a_command():
    found = [kind for module in (options, training_options) for _, kind in inspect.getmembers(module, inspect.isclass)]
    kinds = {kind for kind in found if issubclass(kind, CommandOptions)}
    assert kinds - {CommandOptions} == {command.options for command in COMMANDS.values()}


def test_no_command_takes_what_the_type_checker_cannot_see():
    for path in Path(commands.__file__).parent.glob("*.py"):
        if path.stem != "table":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert not [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "argparse"], path


def test_help_lists_the_commands_in_the_order_of_the_table():
    listed = re.findall(r"^    ([a-z-]+)(?: |$)", make_parser().format_help(), flags=re.MULTILINE)
    assert listed == list(COMMANDS)


def test_wrong_options_of_a_run_are_said_before_anything_is_read(capsys):
    words = ["predict", "--config", "none.yaml", "--input", "none.csv", "--output", "a.csv", "--swap-share", "2"]
    assert main(words) == 2
    assert capsys.readouterr().err == "error: --swap-share is a share and must lie between 0 and 1, got 2.0\n"
