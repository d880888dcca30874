"""The SQLite file of a run: whose it is, damage, and what a kill leaves of its log."""

import random
import shutil
import signal
import sqlite3

import pytest

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.database import SCHEMA_VERSION
from lmsys_ensemble.journal.folder import find_holder
from lmsys_ensemble.journal.journal import Journal
from tests.journal.journal_writer import FINGERPRINTS, chunks_in, commit
from tests.journal.processes import posix, run


def test_a_database_of_another_program_is_refused_and_not_changed(folder):
    folder.mkdir(parents=True)
    connection = sqlite3.connect(folder / "journal.sqlite")
    connection.execute("CREATE TABLE browser_history (url TEXT)")
    connection.close()
    before = (folder / "journal.sqlite").read_bytes()
    with pytest.raises(JournalError, match=r"journal.sqlite is damaged or no journal of a run: it is a datab"):
        Journal.open(folder, FINGERPRINTS)
    assert (folder / "journal.sqlite").read_bytes() == before


def test_a_journal_of_a_newer_version_is_refused(folder):
    Journal.open(folder, FINGERPRINTS).close()
    connection = sqlite3.connect(folder / "journal.sqlite")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(JournalError, match=r"newer lmsys_ensemble \(journal version 3, this one knows 2\). Update"):
        Journal.open(folder, FINGERPRINTS)


@pytest.mark.parametrize("damage", ["no database", "header", "table", "cut", "one page"])
def test_a_damaged_file_is_named_with_a_cure(ten_chunks, damage):
    path = ten_chunks / "journal.sqlite"
    data = bytearray(path.read_bytes())
    if damage == "no database":
        data = bytearray(b"These are my notes, I have put them here. " * 30)
    elif damage == "header":
        data[:100] = bytes(100)
    elif damage == "table":
        data[100:4096] = b"\xff" * 3996
    elif damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[4096:8192] = b"\xa5" * 4096
    path.write_bytes(data)
    with pytest.raises(
        JournalError, match=r"journal.sqlite is damaged or no journal .* Put back a copy of it, or star"
    ):
        Journal.open(ten_chunks, FINGERPRINTS)
    assert find_holder(ten_chunks) is None


KILLED_BEFORE_COMMIT = """
import os, signal, sys
import numpy as np
from tests.journal.journal_writer import FINGERPRINTS, Journal, commit
journal = Journal.open(sys.argv[1], FINGERPRINTS)
many = [f"{row:032x}" for row in range(9000)]
commit(journal, 0)
journal.record_chunks([["a" * 32]])
journal._connection.execute("PRAGMA cache_size = 1")  # writes what is not committed to the log, too

def die(statement):
    if statement.startswith("COMMIT"):
        os.kill(os.getpid(), signal.SIGKILL)

log = sys.argv[1] + "/journal.sqlite-wal"
print(os.path.getsize(log), flush=True)
journal._connection.set_trace_callback(die)
if sys.argv[2] == "results":
    journal.commit("one", many, np.ones((9000, 3), np.float32), {}, device="cpu", n_tokens=0, seconds=1)
else:
    journal.record_chunks([many, ["b" * 32]])
"""


@posix
@pytest.mark.parametrize("what", ["results", "plan"])
def test_what_was_written_and_not_committed_is_ignored(folder, what):
    code, output = run(KILLED_BEFORE_COMMIT, folder, what)
    assert code == -signal.SIGKILL
    assert (folder / "journal.sqlite-wal").stat().st_size > int(output), "nothing was written before the kill"
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert chunks_in(journal.finished("one"), 3) == [0]
        assert journal.chunks() == [["a" * 32]]
        commit(journal, 1)
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert chunks_in(journal.finished("one"), 3) == [0, 1]


KILLED_AFTER_FIVE = """
import os, signal, sys
from tests.journal.journal_writer import FINGERPRINTS, Journal, commit
journal = Journal.open(sys.argv[1], FINGERPRINTS)
for chunk in range(5):
    commit(journal, chunk)
    print(os.path.getsize(sys.argv[1] + "/journal.sqlite-wal"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_a_torn_tail_of_the_log_costs_the_chunks_in_it_and_no_other(folder, tmp_path):
    code, output = run(KILLED_AFTER_FIVE, folder)
    assert code == -signal.SIGKILL
    ends = [int(line) for line in output.split()]
    whole = (folder / "journal.sqlite-wal").read_bytes()
    assert len(whole) == ends[-1]
    noise = random.Random(5).randbytes
    cases = {
        "one byte short": (whole[:-1], 4),
        "cut in the last chunk": (whole[: (ends[3] + ends[4]) // 2], 4),
        "cut between chunks": (whole[: ends[2]], 3),
        "cut in the third chunk": (whole[: ends[2] - 100], 2),
        "zeros in the last chunk": (whole[:-5000] + bytes(5000), 4),
        "noise in the last chunk": (whole[:-300] + noise(300), 4),
        "noise from the third chunk on": (whole[: ends[1]] + noise(len(whole) - ends[1]), 2),
        "noise after the end": (whole + noise(9000), 5),
        "whole": (whole, 5),
    }
    for name, (log, n_left) in cases.items():
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        (copy / "journal.sqlite-wal").write_bytes(log)
        with Journal.open(copy, FINGERPRINTS) as journal:
            assert chunks_in(journal.finished("one"), 6) == list(range(n_left)), name
            for chunk in range(n_left, 6):
                commit(journal, chunk)
        with Journal.open(copy, FINGERPRINTS) as journal:
            assert chunks_in(journal.finished("one"), 7) == list(range(6)), name
