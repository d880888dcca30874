"""What a run directory tells while the run goes on, after it, and after it was killed."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmsys_ensemble.cli import main
from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.journal.status import MAX_LISTED_ERRORS, read_run
from tests.journal.journal_writer import FINGERPRINTS, N_ROWS, commit, errors_of, rows_of

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """Return a run directory: three of four planned chunks, one failed row in each, and a scorer that has none."""
    folder = tmp_path / "night"
    with Journal.open(folder, {**FINGERPRINTS, "two": {"seed": 2}}) as journal:
        journal.record_chunks([rows_of(chunk) for chunk in range(4)])
        for chunk in range(3):
            commit(journal, chunk)
    return folder


def show(capsys, *arguments):
    code = main(["runs", "show", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_report_adds_up_what_was_committed(folder):
    report = read_run(str(folder))
    assert (report.n_planned_rows, report.n_planned_chunks, report.held_by) == (4 * N_ROWS, 4, None)
    one, two = report.scorers
    assert (one.name, one.n_rows, one.n_failed, one.n_chunks) == ("one", 3 * N_ROWS, 3, 3)
    assert (one.n_tokens, one.seconds, one.devices) == (3 * 100 * N_ROWS, 1.5, ("cpu",))
    assert (one.rows_per_second, one.tokens_per_second) == (2 * N_ROWS, 200 * N_ROWS)
    assert 0 < one.first_commit <= one.last_commit
    assert (two.name, two.n_rows, two.n_chunks, two.devices) == ("two", 0, 0, ())
    assert (two.rows_per_second, two.tokens_per_second, two.first_commit, two.last_commit) == (None,) * 4
    expected = {("one", rows_of(chunk)[row], why) for chunk in range(3) for row, why in errors_of(chunk).items()}
    assert {(error.scorer, error.key, error.reason) for error in report.errors} == expected


def test_rows_scored_again_count_once_and_those_of_other_settings_do_not_count(folder):
    with Journal.open(folder, {"two": {"seed": 3}, **FINGERPRINTS}, rescore=True) as journal:
        rows = rows_of(0)[:2]
        for device, errors in (("cuda:1", {0: "no"}), ("cuda:0", {})):
            ones = np.ones((2, 3), np.float32)
            journal.commit("two", rows, ones, errors, device=device, n_tokens=0, seconds=1)
            journal.commit("two", rows[:1], ones[:1], {}, device=device, n_tokens=0, seconds=1)
    two = read_run(folder).scorers[1]
    assert (two.n_rows, two.n_failed, two.n_chunks, two.n_unused_chunks) == (2, 0, 2, 0)
    assert (two.devices, two.rows_per_second, two.tokens_per_second) == (("cuda:0",), 1.0, None)
    Journal.open(folder, {"two": {"seed": 4}}, rescore=True).close()
    assert [(two.n_rows, two.n_chunks, two.n_unused_chunks) for two in read_run(folder).scorers[1:]] == [(0, 0, 2)]


def test_the_list_of_failed_rows_is_limited_and_their_number_is_not(folder):
    with Journal.open(folder, FINGERPRINTS) as journal:
        nans = np.full((N_ROWS, 3), np.nan, np.float32)
        journal.commit("one", rows_of(9), nans, {}, device="cpu", n_tokens=0, seconds=1)
    report = read_run(folder)
    assert len(report.errors) == MAX_LISTED_ERRORS < report.scorers[0].n_failed == N_ROWS + 3


def test_the_command_tells_people(folder, capsys):
    code, out, err = show(capsys, folder)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{folder}: made 20")
    assert lines[0].endswith("; nobody is working on it")
    assert lines[1:4] == [
        "plan: 800 rows in 4 chunks",
        "one: 600 of 800 rows (75.0%) in 3 chunks, 3 failed",
        "one: 1.5 s, 400.0 rows/s, 40,000.0 tokens/s on cpu",
    ]
    assert "two: 0 of 800 rows (0.0%) in 0 chunks, 0 failed" in lines
    assert lines[-4] == "failed (3):"
    assert f"  one, row {rows_of(0)[0]}: told to fail in chunk 0" in lines[-3:]


def test_the_command_tells_machines(folder, capsys):
    code, out, _ = show(capsys, folder, "--json")
    values = json.loads(out)
    assert code == 0
    assert (values["planned_rows"], values["planned_chunks"], values["held_by"]) == (800, 4, None)
    one, two = values["scorers"]
    assert (one["rows"], one["failed"], one["tokens"], one["devices"]) == (600, 3, 60_000, ["cpu"])
    assert one["first_commit"].endswith("+00:00")
    assert (two["rows"], two["first_commit"], two["rows_per_second"]) == (0, None, None)
    assert {error["reason"] for error in values["errors"]} == {f"told to fail in chunk {chunk}" for chunk in range(3)}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="paths are Unicode there")
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_path_that_is_no_unicode_can_be_shown(folder, capsys, how):
    odd = folder.rename(folder.with_name(os.fsdecode(b"n\xe4chtlich")))
    code, out, err = show(capsys, odd, *how)
    assert (code, err) == (0, "")
    assert "n\\udce4chtlich" in out
    if how:
        assert json.loads(out)["folder"] == str(odd)


def test_of_many_failed_rows_the_command_shows_a_few(folder, capsys):
    with Journal.open(folder, FINGERPRINTS) as journal:
        nans = np.full((20, 3), np.nan, np.float32)
        journal.commit("one", rows_of(9)[:20], nans, {}, device="cpu", n_tokens=0, seconds=1)
    _, out, _ = show(capsys, folder)
    assert "failed (23):" in out
    assert out.endswith("  ... 13 more; --json lists up to 23\n")


WORKING = """
import sys
from tests.journal.journal_writer import FINGERPRINTS, Journal, commit
with Journal.open(sys.argv[1], FINGERPRINTS) as journal:
    for line in sys.stdin:
        commit(journal, int(line))
        print("committed", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_a_run_can_be_watched_without_disturbing_it_and_looked_at_after_a_kill(folder, capsys):
    command = [sys.executable, "-c", WORKING, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as process:
        try:
            for chunk in range(3, 12):
                process.stdin.write(f"{chunk}\n")
                process.stdin.flush()
                assert process.stdout.readline() == "committed\n"
                report = read_run(folder)
                assert (report.scorers[0].n_chunks, report.held_by) == (chunk + 1, process.pid)
            _, out, _ = show(capsys, folder)
            assert f"process {process.pid} is working on it" in out
        finally:
            process.send_signal(signal.SIGKILL)
    report = read_run(folder)
    assert (report.scorers[0].n_chunks, report.held_by) == (12, None)
    (folder / "run.lock").unlink()
    assert read_run(folder).held_by is None
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert len(journal.finished("one")) == 12 * N_ROWS


def test_a_reader_at_work_does_not_keep_a_run_from_writing_or_closing(folder):
    reader = sqlite3.connect(f"{(folder / 'journal.sqlite').as_uri()}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM results").fetchone() == (3,)
    with Journal.open(folder, FINGERPRINTS) as journal:
        commit(journal, 3)
        assert reader.execute("SELECT count(*) FROM results").fetchone() == (3,)
    reader.close()
    assert read_run(folder).scorers[0].n_chunks == 4


def test_a_copy_of_the_journal_alone_can_be_read(folder, tmp_path):
    (tmp_path / "copy").mkdir()
    shutil.copy(folder / "journal.sqlite", tmp_path / "copy")
    assert read_run(tmp_path / "copy").scorers[0].n_rows == 3 * N_ROWS


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_can_be_read_where_nothing_may_be_written(folder):
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert read_run(folder).scorers[0].n_rows == 3 * N_ROWS
    finally:
        folder.chmod(0o755)


def test_without_a_plan_rows_are_told_without_a_share(tmp_path, capsys):
    with Journal.open(tmp_path, FINGERPRINTS) as journal:
        commit(journal, 0)
    assert "one: 200 rows in 1 chunks, 1 failed\n" in show(capsys, tmp_path)[1]


@pytest.mark.parametrize("content", [None, b"", b"These are my notes. " * 100])
def test_what_is_no_run_is_refused(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "journal.sqlite").write_bytes(content)
    with pytest.raises(JournalError, match=r"is no run directory|has not begun|is damaged or no journal of a run"):
        read_run(tmp_path)
    code, out, err = show(capsys, tmp_path)
    assert (code, out) == (2 if content is None else 1, "")
    assert err.startswith("error: ")


def test_a_run_of_a_newer_version_is_refused(folder):
    connection = sqlite3.connect(folder / "journal.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="written by a newer lmsys_ensemble"):
        read_run(folder)
