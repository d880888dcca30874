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
        progress = ScorerProgress("gemma", "cuda:1", 0, display, lambda: False)
        progress.expect(3, 300)
        for _ in range(3):
            progress.advance(1, n_tokens)
            progress.done(100)
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


@pytest.mark.parametrize("n_tokens", [0, 200])
def test_bars_show_scorer_device_rows_tokens_and_the_time_left(run, capsys, n_tokens):
    written = run(capsys, "bars", n_tokens=n_tokens)
    assert "gemma (cuda:1)" in written
    assert "3/3 rows" in written
    assert ("tokens/s" in written) == bool(n_tokens)
    assert " left" in written


def test_a_scorer_that_is_announced_again_keeps_its_bar_and_says_once_that_it_is_done(capsys):
    progress = ScorerProgress("gemma", "cuda:1", 0, "lines", lambda: False)
    for n_rows in (3, 5):
        progress.expect(n_rows, 10 * n_rows)
        progress.advance(n_rows, 0)
    progress.finish()
    progress.finish()
    assert capsys.readouterr().err.count("gemma (cuda:1): 8 rows in ") == 1


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
    progress = ScorerProgress("gemma", "cpu", 0, "off", stop.is_set)
    call(progress)
    stop.set()
    with pytest.raises(StopScoring):
        call(progress)


def test_a_scorer_that_catches_every_exception_does_not_catch_the_stop():
    assert not issubclass(StopScoring, Exception)


def test_what_threads_report_at_the_same_time_is_kept_apart_and_added_up():
    progress = ScorerProgress("gemma", "cpu", 0, "off", lambda: False)
    calls = {}
    meeting = threading.Barrier(2)

    def score(n_rows):
        call = progress.begin()
        meeting.wait(60)
        for _ in range(n_rows):
            progress.advance(1, 10)
        progress.row_failed(n_rows - 1, f"too long in {n_rows}")
        calls[n_rows] = call

    threads = [threading.Thread(target=score, args=(n_rows,)) for n_rows in (2, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (progress.n_rows, progress.n_tokens) == (302, 3020)
    for n_rows, call in calls.items():
        assert (call.n_rows, call.n_tokens) == (n_rows, 10 * n_rows)
        assert call.failed == {n_rows - 1: f"too long in {n_rows}"}


def test_batches_that_are_run_again_are_counted_and_logged(caplog):
    progress = ScorerProgress("gemma", "cuda:1", 0, "off", lambda: False)
    progress.retried("out of memory, 8 rows in two halves")
    assert progress.n_retries == 1
    assert "gemma (cuda:1): out of memory, 8 rows in two halves" in caplog.text
