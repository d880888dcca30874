import logging
import sys
import threading

import pytest

from lmsys_ensemble.hosting.display import Screen
from lmsys_ensemble.hosting.progress import ScorerProgress
from lmsys_ensemble.hosting.scope import StopScope, StopScoring


def silent():
    return Screen(["gemma"], "off")


@pytest.fixture
def run(monkeypatch):
    """Return a function that shows three rows' progress and returns what was written."""

    def make(capsys, display, *, terminal=False, n_tokens=0):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
        with Screen(["gemma"], display) as screen:
            progress = ScorerProgress("gemma", "cuda:1", 0, screen, StopScope())
            progress.expect(3, 300)
            for _ in range(3):
                progress.begin()
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
def test_bars_show_scorer_device_rows_and_tokens(run, capsys, n_tokens):
    written = run(capsys, "bars", n_tokens=n_tokens)
    assert "gemma (cuda:1)" in written
    assert "3/3 rows" in written
    assert ("tokens/s" in written) == bool(n_tokens)


def test_a_scorer_that_is_announced_again_keeps_its_bar_and_says_once_that_it_is_done(capsys):
    progress = ScorerProgress("gemma", "cuda:1", 0, Screen(["gemma"], "lines"), StopScope())
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
    scope = StopScope()
    progress = ScorerProgress("gemma", "cpu", 0, silent(), scope)
    call(progress)
    scope.cancel()
    with pytest.raises(StopScoring):
        call(progress)


def test_a_scorer_that_catches_every_exception_does_not_catch_the_stop():
    assert not issubclass(StopScoring, Exception)


def test_what_threads_report_at_the_same_time_is_kept_apart_and_added_up():
    progress = ScorerProgress("gemma", "cpu", 0, silent(), StopScope())
    calls = {}
    meeting = threading.Barrier(2)

    def score(n_rows):
        call = progress.begin()
        meeting.wait(300)
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
    progress = ScorerProgress("gemma", "cuda:1", 0, silent(), StopScope())
    progress.retried("out of memory, 8 rows in two halves")
    assert progress.n_retries == 1
    assert "gemma (cuda:1): out of memory, 8 rows in two halves" in caplog.text


def test_what_is_being_done_is_shown_until_rows_are_scored():
    progress = ScorerProgress("gemma", "cuda:1", 0, silent(), StopScope())
    phases = [progress.standing().phase]
    for phase in ("fetching", "loading"):
        progress.phase(phase)
        phases.append(progress.standing().phase)
    progress.expect(3, 300)
    phases.append(progress.standing().phase)
    progress.begin()
    phases.append(progress.standing().phase)
    assert phases == ["waiting", "fetching", "loading", "encoding", ""]
    progress.phase("loading")  # another device loads the scorer, while this one scores
    assert progress.standing().phase == ""


def test_the_rows_of_a_chunk_count_for_as_many_as_they_stand_for_and_never_for_more_than_there_are():
    finished = [2]  # of an earlier run
    progress = ScorerProgress("gemma", "cpu", 0, silent(), StopScope(), lambda: (finished[0], 10, 2.0))
    progress.expect(4, 400)
    assert (progress.standing().n_done, progress.standing().n_wanted) == (2, 10)
    progress.begin()
    progress.advance(3, 30)
    assert progress.standing().n_done == 8
    progress.advance(3, 30)  # a batch that is run again reports its rows twice
    assert progress.standing().n_done == 10
    finished[0] = 6
    progress.done(200)
    assert progress.standing().n_done == 6


def test_a_chunk_that_was_given_up_no_longer_counts_when_the_next_begins():
    progress = ScorerProgress("gemma", "cpu", 0, silent(), StopScope(), lambda: (0, 10, 1.0))
    progress.expect(10, 100)
    progress.begin()
    progress.advance(4, 0)
    progress.begin()
    assert progress.standing().n_done == 0


def test_the_time_left_is_reckoned_from_what_chunks_cost():
    progress = ScorerProgress("gemma", "cpu", 0, silent(), StopScope())
    progress.expect(4, 400)
    assert progress.standing().left == ""
    progress.begin()
    progress.done(100)
    assert progress.standing().left != ""
    progress.done(300)
    assert progress.standing().left == ""


@pytest.mark.parametrize(("n_done", "phase"), [(3, ""), (2, "stopped")])
def test_a_bar_that_is_closed_stands_still(n_done, phase):
    progress = ScorerProgress("gemma", "cpu", 0, silent(), StopScope(), lambda: (n_done, 3, 1.0))
    progress.expect(3, 300)
    progress.begin()
    progress.close()
    standing = progress.standing()
    assert standing.phase == phase
    progress.begin()
    progress.advance(1, 0)
    assert progress.standing() == standing
