"""Fields of dataclasses become flags and are read from what was parsed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from lmsys_ensemble.arguments import CommandParser
from lmsys_ensemble.flags import add_flags, flag, positional, read_flags, spell, spelled_as_flags


@dataclass(frozen=True, kw_only=True)
class Part:
    limit_s: float | None = field(default=None, metadata=flag("end in time", "SECONDS"))
    kept_in: str | Path | None = field(default=None, metadata=flag("where", "DIR"))
    is_tried: bool = True
    """No flag."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    action: Literal["list", "pull"] = field(metadata=positional("what to do"))
    names: tuple[str, ...] = field(default=(), metadata=positional("default: all", "NAME"))
    files: tuple[str, ...] = field(metadata=flag("what is read", "FILE"))
    n_rows: int = field(default=3, metadata=flag("how many", "N"))
    how: Literal["fast", "well"] = field(default="well", metadata=flag("which way"))
    no_check: bool = field(default=False, metadata=flag("leave it out"))
    part: Part


@pytest.fixture
def parser():
    parser = CommandParser(prog="p")
    add_flags(parser, Whole)
    return parser


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("list --files a b", Whole(action="list", files=("a", "b"), part=Part())),
        ("pull --files a", Whole(action="pull", files=("a",), part=Part())),
        (
            "pull x y --files a --n-rows 5 --how fast --no-check --limit 1.5 --kept-in d",
            Whole(
                action="pull", names=("x", "y"), files=("a",), n_rows=5, how="fast", no_check=True,
                part=Part(limit_s=1.5, kept_in="d"),
            ),
        ),
    ],
)  # fmt: skip
def test_what_was_given_is_read_and_the_rest_is_the_default(parser, words, expected):
    assert read_flags(Whole, parser.parse_args(words.split())) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("list", "the following arguments are required: --files"),
        ("lst --files a", "there is no value 'lst' (did you mean 'list'?)"),
        ("list --files a --how slow", "argument --how: there is no value 'slow'"),
        ("list --files a --n-rows few", "argument --n-rows: invalid int value: 'few'"),
        ("list --files a --limit 9h", "expected a number of seconds such as 3600, got '9h'"),
        ("list --files a --is-tried", "there is no option --is-tried"),
    ],
)
def test_what_does_not_fit_the_field_is_refused(parser, capsys, words, message):
    with pytest.raises(SystemExit):
        parser.parse_args(words.split())
    assert message in capsys.readouterr().err


def test_help_says_what_fields_say(parser):
    text = " ".join(parser.format_help().split())
    for words in ("--limit SECONDS end in time", "--how {fast,well} which way", "--files FILE [FILE ...] what is read"):
        assert words in text


def test_options_are_spelled_as_flags_only_on_the_command_line():
    words = ("run_dir=", "swap=True", "swap='all'", "limit_s")
    assert tuple(map(spell, words)) == words
    with spelled_as_flags():
        assert list(map(spell, words)) == ["--run-dir", "--swap", "--swap all", "--limit"]
    assert tuple(map(spell, words)) == words


def test_an_error_ends_the_spelling_as_flags():
    with pytest.raises(ZeroDivisionError), spelled_as_flags():
        raise ZeroDivisionError
    assert spell("run_dir=") == "run_dir="


def test_errors_name_flags_as_long_as_a_command_runs_in_any_thread_and_no_longer():
    one, two = spelled_as_flags(), spelled_as_flags()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)  # not in the order of a stack: calls in threads overlap
    assert spell("run_dir=") == "--run-dir"
    two.__exit__(None, None, None)
    assert spell("run_dir=") == "run_dir="
