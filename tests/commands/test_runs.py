"""What a run directory tells while the run goes on, after it, and after it was killed."""

import json
import os
import sys

import numpy as np
import pytest

from lmsys_ensemble.cli import main
from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.journal.status import read_run
from tests.journal.journal_writer import FINGERPRINTS, N_ROWS, begin_run, commit, rows_of
from tests.journal.processes import started


@pytest.fixture
def folder(tmp_path):
    return begin_run(tmp_path / "night")


def show(capsys, *arguments):
    code = main(["runs", "show", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


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
    with started(WORKING, folder) as process:
        for chunk in range(3, 12):
            process.stdin.write(f"{chunk}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "committed\n"
            report = read_run(folder)
            assert (report.scorers[0].n_chunks, report.held_by) == (chunk + 1, process.pid)
        _, out, _ = show(capsys, folder)
        assert f"process {process.pid} is working on it" in out
    report = read_run(folder)
    assert (report.scorers[0].n_chunks, report.held_by) == (12, None)
    (folder / "run.lock").unlink()
    assert read_run(folder).held_by is None
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert len(journal.finished("one")) == 12 * N_ROWS


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
