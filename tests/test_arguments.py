"""Mistyped options and commands are named, with the nearest known one."""

import pytest

from lmsys_ensemble.arguments import CommandParser
from lmsys_ensemble.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sumbit"], "there is no command 'sumbit' (did you mean 'submit'?)"),
        (["predict", "--inptu", "a.csv", "--output", "b.csv"], "there is no option --inptu (did you mean '--input'?)"),
        (["predict", "--input", "a.csv", "--outptu=b.csv"], "there is no option --outptu (did you mean '--output'?)"),
        (["submit", "--test", "a", "--tim-budget", "9"], "option --tim-budget (did you mean '--time-budget'?)"),
        (["submit", "--test", "a", "--swap", "adaptiv"], "there is no value 'adaptiv' (did you mean 'adaptive'?)"),
        (["predict", "--config", "", "--input", "a", "--output", "b"], "argument --config: it is empty"),
        (["submit", "--test", "a", "--sample="], "argument --sample: it is empty"),
        (["runs", "show", ""], "argument DIR: it is empty"),
        (["submit", "--test", "a\0b"], "argument --test: it holds a zero byte"),
        (["models", "lst"], "there is no value 'lst' (did you mean 'list'?)"),
        (["runs", "shwo", "x"], "there is no value 'shwo' (did you mean 'show'?)"),
        (["--verson"], "there is no option --verson (did you mean '--version'?)"),
        (["predict", "--input", "a", "--output", "b", "--zzz"], "there is no option --zzz"),
        (["predict", "-input", "a", "--output", "b"], "there is no option -input (did you mean '--input'?)"),
        (["predict", "--test", "a.csv"], "there is no option --test (did you mean '--input'?)"),
        (["submit", "--input", "a.csv"], "there is no option --input (did you mean '--test'?)"),
        (["submit", "--test", "a", "--time-budget", "9h"], "expected a number of seconds such as 3600, got '9h'"),
        (["predict", "--input", "a.csv"], "the following arguments are required: --output"),
        (["blend", "--probabilities", "a", "--out", "b", "--mehtod", "log"], "--mehtod (did you mean '--method'?)"),
    ],
)  # fmt: skip
def test_what_was_mistyped_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in " ".join(captured.err.split())


def test_a_name_that_is_too_long_is_a_wrong_argument(capsys):
    assert main(["validate", "--config", "x" * 5000]) == 2
    assert "File name too long" in capsys.readouterr().err


@pytest.fixture
def parser():
    parser = CommandParser(prog="p", exit_on_error=False)
    parser.add_argument("--number", type=float)
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("-o", metavar="FILE")
    parser.add_argument("names", nargs="*")
    return parser


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--number", "-1.5"], {"number": -1.5}),
        (["--num=-2"], {"number": -2}),
        (["-v", "a", "-"], {"verbose": True, "names": ["a", "-"]}),
        (["--", "--unknown"], {"names": ["--unknown"]}),
        (["-ofile"], {"o": "file"}),
        (["-vofile"], {"o": "file", "verbose": True}),
        (["a b", "-c d"], {"names": ["a b", "-c d"]}),
    ],
)
def test_what_argparse_takes_is_taken(parser, arguments, expected):
    parsed = vars(parser.parse_args(arguments))
    assert {name: parsed[name] for name in expected} == expected


def test_help_exits_well(capsys):
    for arguments in (["--help"], ["blend", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
