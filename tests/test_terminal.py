import json
import logging
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.cli import main
from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.terminal import PrintableFormatter, has_control_characters, printable, printable_json
from lmsys_ensemble.testing.fake import FakeScorer

ESCAPES = ["\x1b[2J", "\x1b]52;c;cm0=\x07", "\x9b31m", "\r", "\x08", "\x7f", "\u202e", "\u2066", "\u2028", "\x00"]


@pytest.mark.parametrize("escape", ESCAPES)
def test_what_a_terminal_would_obey_is_written_out(escape):
    assert printable(f"a{escape}b").isprintable()
    assert printable(f"a{escape}b") != "ab"
    assert has_control_characters(f"a{escape}b")
    assert printable("grün\tone\nzwei 日本 🙂") == "grün\tone\nzwei 日本 🙂"
    assert not has_control_characters("grün 日本 🙂")


@given(st.text())
def test_nothing_but_line_feeds_and_tabs_gets_through(text):
    shown = printable(text)
    shown.encode()
    assert not has_control_characters(shown.replace("\n", "").replace("\t", ""))


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_json_means_the_same_and_holds_no_controls(values):
    text = printable_json(values)
    assert json.loads(text) == values
    assert not has_control_characters(text.replace("\n", ""))


def test_the_log_goes_through_the_same_door():
    record = logging.makeLogRecord({"msg": "row %s", "args": ("\x1b[2J",)})
    assert PrintableFormatter("%(message)s").format(record) == r"row \x1b[2J"


def test_names_of_scorers_that_would_reach_a_bar_are_refused(battles_table):
    ensemble = Ensemble([FakeScorer(name="mine\x1b[2J"), FakeScorer(name="two\n")])
    with pytest.raises(ConfigError, match=r"cannot be shown or stored: 'mine\\x1b\[2J', 'two.*Pass name=") as caught:
        ensemble.predict(battles_table)
    assert "\x1b" not in str(caught.value)


@pytest.fixture
def hostile(tmp_path, monkeypatch, battles_table):
    """Go to a folder with a table whose ids, columns and texts hold escapes."""
    monkeypatch.chdir(tmp_path)
    table = battles_table.assign(id=[f"{number}\x1b[2J\x9b1m" for number in range(5)])
    table.to_csv("test.csv", index=False)
    (tmp_path / "ensemble.yaml").write_text(yaml.safe_dump({"scorers": [{"type": "fake"}]}))
    return table


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv"),
        ("predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv", "--json"),
        ("predict", "--config", "ensemble.yaml", "--input", "wrong.csv", "--output", "p.csv"),
        ("validate", "--config", "ensemble.yaml", "--input", "wrong.csv"),
        ("predict", "--config", "\x1b[31m.yaml", "--input", "test.csv", "--output", "p.csv"),
        ("predict", "--config", "named.yaml", "--input", "test.csv", "--output", "p.csv"),
        ("models", "verify", "\x1b[31m"),
        ("runs", "show", "\x1b[31m"),
    ],
)
def test_no_escape_of_a_stranger_reaches_the_terminal(hostile, capsys, arguments):
    wrong = hostile.assign(prompt=["\x1b[2J", *["x"] * 4], **{"\x9b2J": 1})
    pd.concat([wrong, wrong]).to_csv("wrong.csv", index=False)
    with open("named.yaml", "w") as file:
        yaml.safe_dump({"scorers": [{"type": "fake", "name": "\x1b[2J"}]}, file)
    main(arguments)
    said = "".join(capsys.readouterr())
    assert said
    assert not has_control_characters(said.replace("\n", "").replace("\t", ""))


def test_a_warning_of_python_is_printed_without_what_a_terminal_would_obey():
    script = (
        "import dataclasses, sys, warnings; from lmsys_ensemble.cli import COMMANDS, main\n"
        "from lmsys_ensemble.commands.output import Result\n"
        "def warn(_): warnings.warn('the member mine\\x1b[2Jyours is odd'); return Result({}, 'done')\n"
        "COMMANDS['models'] = dataclasses.replace(COMMANDS['models'], load=lambda: warn)\n"
        "sys.exit(main(['models', 'list']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stderr
    assert r"mine\x1b[2Jyours is odd" in done.stderr
