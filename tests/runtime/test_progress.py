import logging
import sys
import threading

import pytest

from lmsys_ensemble.runtime.progress import ScorerProgress, StopScoring


@pytest.fixture
def run(monkeypatch):
    """Return a function that shows three rows' progress and returns what was written."""

    def make(capsys, display, *, terminal=False, n_tokens=0):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
        progress = ScorerProgress("gemma", "cuda:1", 0, display, threading.Event())
        progress.expect(3, 3 * n_tokens)
        for _ in range(3):
            progress.advance(1, n_tokens)
        progress.finish()
        captured = capsys.readouterr()
        assert captured.out == ""  # standard output belongs to results
        return captured.err

    return make


@pytest.mark.parametrize("n_tokens", [0, 200])
def test_lines_are_one_line_a_scorer(run, capsys, n_tokens):
    written = run(capsys, "lines", n_tokens=n_tokens)
    assert written.startswith("gemma (cuda:1): 3 rows in ")
    assert written.count("\n") == 1
    assert ("tokens/s" in written) == bool(n_tokens)


@pytest.mark.parametrize(("n_tokens", "unit"), [(0, "3.00/3.00"), (200, "600/600")])
def test_bars_show_scorer_device_rows_and_tokens(run, capsys, n_tokens, unit):
    written = run(capsys, "bars", n_tokens=n_tokens)
    assert "gemma (cuda:1)" in written
    assert unit in written
    assert "3 rows" in written


def test_off_is_silent_but_the_log_knows(run, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="lmsys_ensemble"):
        assert run(capsys, "off") == ""
    assert "gemma (cuda:1): 3 rows" in caplog.text


def test_auto_is_a_bar_on_a_terminal_and_silent_elsewhere(run, capsys):
    assert run(capsys, "auto", terminal=False) == ""
    assert "gemma (cuda:1)" in run(capsys, "auto", terminal=True)


@pytest.mark.parametrize("call", [lambda p: p.expect(1, 0), lambda p: p.advance(1, 0)], ids=["expect", "advance"])
def test_a_scorer_is_ended_when_the_run_is_being_stopped(call):
    stop = threading.Event()
    progress = ScorerProgress("gemma", "cpu", 0, "off", stop)
    call(progress)
    stop.set()
    with pytest.raises(StopScoring):
        call(progress)


def test_a_scorer_that_catches_every_exception_does_not_catch_the_stop():
    assert not issubclass(StopScoring, Exception)
