import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.hosting.display import Screen, Standing, draw

WORDS = re.compile(r"[^\s|\[\],:]+")

standings = st.builds(
    Standing,
    name=st.sampled_from(["a", "smollm2-135m", "gemma-2-9b-it-checkpoint-5748"]),
    device=st.sampled_from(["", "cpu", "cuda:12"]),
    phase=st.sampled_from(["", "", "", "starting", "loading", "waiting"]),
    n_done=st.integers(0, 55_000),
    n_wanted=st.integers(0, 55_000),
    unit=st.sampled_from(["rows", "passes"]),
    elapsed=st.sampled_from(["00:04", "11:02:31"]),
    tokens_per_second=st.sampled_from([0.0, 88.2, 12_345.6]),
    left=st.sampled_from(["", "07:31", "1:07:31"]),
)


@given(standings, st.integers(1, 200))
def test_a_line_is_never_wider_than_the_terminal(standing, width):
    assert len(draw(standing, width)) <= width


@given(standings, st.integers(40, 200))
def test_words_are_whole_or_left_out(standing, width):
    whole = set(WORDS.findall(draw(standing, 500)))
    for word in WORDS.findall(draw(standing, width)):
        bar = set(word) <= set("█▏▎▍▌▋▊▉ ")
        assert word in whole or bar or word.endswith("…"), word


@given(standings)
def test_a_wider_line_never_says_less(standing):
    def said(width):
        return {word for word in WORDS.findall(draw(standing, width)) if not set(word) <= set("█▏▎▍▌▋▊▉ ")}

    for width in range(60, 140, 7):
        assert len(said(width)) <= len(said(width + 7))


ROWS = Standing("smollm2-135m", "cpu", "", 12, 24, "rows", "00:38", 120.4, "00:37")


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            120,
            f"smollm2-135m (cpu):  50%|{'█' * 20}{' ' * 20}| 12/24 rows [00:38, 120 tokens/s, 00:37 left]",
        ),
        (79, "smollm2-135m (cpu):  50%|████    | 12/24 rows [00:38, 120 tokens/s, 00:37 left]"),
        (60, "smollm2-135m (cpu):  50%|█████     | 12/24 rows [00:37 left]"),
        (50, "smollm2-135m:  50%|███   | 12/24 rows [00:37 left]"),
        (45, "smollm2-135m: 50%, 12/24 rows, 00:37 left"),
        (39, "smollm2-135m: 50%, 12/24 rows"),
        (20, "smollm2-135m: 50%"),
        (10, "smol…: 50%"),
        (3, "50%"),
    ],
)  # fmt: skip
def test_what_a_line_says_at_a_width(width, line):
    assert draw(ROWS, width) == line


def test_what_a_line_says_before_rows_are_scored():
    standing = Standing("gemma", "cuda:0", "loading", elapsed="00:07")
    assert draw(standing, 79) == "gemma (cuda:0): loading [00:07]"
    assert draw(standing, 20) == "gemma: loading"
    assert draw(Standing("gemma", phase="starting"), 79) == "gemma: starting [00:00]"


def test_a_screen_shows_something_before_anybody_has_told_it_anything(capsys):
    with Screen(["one", "two"], "bars"):
        pass
    written = capsys.readouterr().err
    assert "one: starting [00:00]" in written
    assert "two: starting [00:00]" in written


def test_a_line_is_drawn_again_although_nobody_tells_it_anything(capsys):
    drawn = threading.Event()
    calls = []

    def standing():
        calls.append(None)
        if len(calls) >= 4:
            drawn.set()
        return Standing("one", phase="loading")

    with Screen(["one"], "bars") as screen:
        screen.show(0, standing)
        assert drawn.wait(300)
    n_drawn = len(calls)
    assert not [thread for thread in threading.enumerate() if thread.name == "redraws progress"]
    assert n_drawn == len(calls)


@pytest.mark.parametrize("display", ["off", "lines"])
def test_nothing_is_drawn_where_nothing_is_asked_for(capsys, display):
    before = threading.active_count()
    with Screen(["one"], display):
        assert threading.active_count() == before
    assert capsys.readouterr().err == ""


# --- a real terminal ------------------------------------------------------------------------------------------------


def in_terminal(width, *command, cwd):
    """Run a command in a pseudo terminal of some width and return what it wrote there."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "lmsys_ensemble", *command], stdout=subprocess.PIPE, stderr=follower, cwd=cwd,
        env=environment,
    )  # fmt: skip
    os.close(follower)
    parts = []
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # what Linux says at the end of a terminal
            break
        if not part:
            break
        parts.append(part)
    process.communicate(timeout=300)
    os.close(leader)
    return process.returncode, b"".join(parts).decode()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with 40 rows, of which 10 are twins of others, and an ensemble of two."""
    texts = {name: [json.dumps([f"{name} {row % 30}"]) for row in range(40)] for name in ("prompt", "response_a")}
    pd.DataFrame({"id": range(40), **texts, "response_b": '["no"]'}).to_csv(tmp_path / "test.csv", index=False)
    scorers = [{"type": "fake", "seed": seed, "name": f"scorer-{seed}", "seconds_per_row": 0.01} for seed in range(2)]
    (tmp_path / "ensemble.yaml").write_text(yaml.safe_dump({"version": 1, "scorers": scorers}))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


def lines_of(written):
    return [line for line in re.split(r"[\r\n]+|\x1b\[A|\x1b\[K", written) if line]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_in_a_terminal_bars_begin_at_once_and_end_at_their_end_with_the_tables_rows(folder, width):
    command = ["predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "out.csv"]
    code, written = in_terminal(width, *command, cwd=folder)
    lines = lines_of(written)
    assert code == 0, written
    assert lines[0] == "starting"
    assert lines[1].startswith("scorer-0: starting")
    assert all(len(line) < width for line in lines)
    for line in lines[-2:]:
        assert "100%" in line
        assert "40/40 rows" in line
    assert [line.split(":")[0].split(" ")[0] for line in lines[-2:]] == ["scorer-0", "scorer-1"]
    assert written.endswith("\n")


def test_rows_scored_both_ways_are_counted_as_passes(folder):
    command = ["predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "out.csv"]
    for swap, expected in (("all", "80/80 passes"), ("adaptive", "passes")):
        code, written = in_terminal(100, *command, "--swap", swap, cwd=folder)
        assert code == 0, written
        assert "100%" in lines_of(written)[-1]
        assert expected in lines_of(written)[-1]


def test_a_run_that_is_resumed_begins_where_it_was(folder):
    command = ["predict", "--config", "ensemble.yaml", "--output", "out.csv", "--run-dir", "run"]
    table = pd.read_csv(folder / "test.csv")
    table[:20].to_csv(folder / "part.csv", index=False)
    in_terminal(100, *command, "--input", "part.csv", cwd=folder)
    code, written = in_terminal(100, *command, "--input", "test.csv", cwd=folder)
    assert code == 0, written
    counts = [int(count) for count in re.findall(r"(\d+)/40 rows", written)]
    assert min(counts) >= 20
    assert counts[-1] == 40


@pytest.mark.parametrize("width", [40, 80, 120])
def test_an_error_is_wrapped_at_the_terminals_width_between_words(folder, width):
    path = "a-folder-that-is-not-there/with-a-long-name-and-many-hyphens.csv"
    command = ["predict", "--config", "ensemble.yaml", "--input", path, "--output", "out.csv"]
    code, written = in_terminal(width, *command, cwd=folder)
    assert code == 2
    lines = lines_of(written)[1:]
    assert path in " ".join(line.strip() for line in lines).split()
    assert all(len(line) < width or path in line for line in lines)
