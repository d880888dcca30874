"""What a run directory tells of a run: how much is done, how fast, and what failed."""

import os
import shutil
import sqlite3
import sys

import numpy as np
import pytest

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.journal.status import MAX_LISTED_ERRORS, read_run
from tests.journal.journal_writer import FINGERPRINTS, N_ROWS, begin_run, commit, errors_of, rows_of


@pytest.fixture
def folder(tmp_path):
    return begin_run(tmp_path / "night")


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


def test_a_run_of_a_newer_version_is_refused(folder):
    connection = sqlite3.connect(folder / "journal.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="written by a newer lmsys_ensemble"):
        read_run(folder)
