"""An option of a run is declared once; what cannot be derived from the declaration is compared with it here."""

import inspect
import re
from dataclasses import fields
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from lmsys_ensemble import Ensemble
from lmsys_ensemble.cli import make_parser
from lmsys_ensemble.flags import flag_name, read_flags
from lmsys_ensemble.runtime.options import RunKeywords, RunOptions

OPTIONS = [field.name for field in fields(RunOptions)]
COMMANDS = [["submit", "--test", "a.csv"], ["predict", "--input", "a.csv", "--output", "b.csv"]]


def test_the_keywords_are_the_options():
    assert get_type_hints(RunKeywords) == get_type_hints(RunOptions)


@pytest.mark.parametrize("name", OPTIONS)
def test_predict_explains_every_option(name):
    documented = re.findall(r"^(\w+) : (.+)\n    \S", inspect.getdoc(Ensemble.predict), flags=re.MULTILINE)
    assert [other for other, _ in documented if other != "table"] == OPTIONS
    hint = get_type_hints(RunOptions)[name]
    if get_origin(hint) is Literal:
        assert set(re.findall(r'"(\w+)"', dict(documented)[name])) == set(get_args(hint))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_every_option_is_a_flag_with_its_default(command, capsys):
    assert read_flags(RunOptions, make_parser().parse_args(command)) == RunOptions()
    with pytest.raises(SystemExit):
        make_parser().parse_args([command[0], "--help"])
    flags = re.findall(r"^  (--[\w-]+)", capsys.readouterr().out, flags=re.MULTILINE)
    assert {flag_name(name) for name in OPTIONS} <= set(flags)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_flags_are_read(command):
    flags = (
        "--run-dir run --rescore --retry-failed --time-budget 90 --on-failure reweight --max-failed-rows 0.2 "
        "--swap adaptive --swap-share 0.25 --swap-space probability"
    )
    options = read_flags(RunOptions, make_parser().parse_args([*command, *flags.split()]))
    assert options == RunOptions("run", True, True, 90.0, "reweight", 0.2, "adaptive", 0.25, "probability")
    assert RunOptions.of(**options.keywords()) == options
