import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import lmsys_ensemble
from lmsys_ensemble.errors import ContractError, JournalError
from lmsys_ensemble.journal.database import SCHEMA_VERSION
from lmsys_ensemble.journal.finished import unpack_keys
from lmsys_ensemble.journal.folder import find_holder
from lmsys_ensemble.journal.journal import Journal
from tests.journal.journal_writer import (
    FINGERPRINTS,
    N_ROWS,
    chunks_in,
    commit,
    errors_of,
    logits_of,
    rows_of,
)

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 60
"""Seconds after which a test that waits for another process has failed."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="uses signals")


@pytest.fixture
def folder(tmp_path):
    """Return the path of a run directory that is not there yet."""
    return tmp_path / "runs" / "night"


@contextmanager
def started(code, *arguments):
    """Yield a Python process that can import the tests, from code or the name of a module; kill it in the end."""
    how = ["-c", code] if "\n" in code else ["-m", code]
    command = [sys.executable, *how, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def run(code, *arguments):
    """Run a Python process to its end; return exit code and output."""
    with started(code, *arguments) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def put(journal, rows, values, errors=None, scorer="one"):
    """Commit rows with one value each for all three logits."""
    logits = np.repeat(np.array(values, dtype=np.float32)[:, None], 3, axis=1)
    journal.commit(scorer, rows, logits, errors or {}, device="cpu", n_tokens=0, seconds=0.1)


# --- what is committed comes back ------------------------------------------------------------------------------------


def test_what_is_committed_comes_back_bit_for_bit(folder):
    rows = rows_of(0)[:4]
    logits = np.array([[1e-45, -0.0, 3.4e38], [0.1, -0.1, 1 / 3], [1, 2, 3], [-1, 0, 1]], dtype=np.float32)
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert len(journal.finished("one")) == 0
        journal.commit("one", rows, logits, {}, device="cuda:0", n_tokens=12, seconds=0.25)
        before = journal.finished("one")
    with Journal.open(str(folder), FINGERPRINTS) as journal:
        after = journal.finished("one")
    for finished in (before, after):
        order = finished.positions(rows)
        assert sorted(order) == [0, 1, 2, 3]
        assert finished.logits[order].tobytes() == logits.tobytes()
        assert finished.logits.dtype == np.float32
        assert finished.errors == {}
        assert unpack_keys(finished.keys[order].tobytes()) == rows


def test_rows_are_found_among_others_and_strangers_are_not(folder):
    with Journal.open(folder, FINGERPRINTS) as journal:
        nothing = journal.finished("one")
        commit(journal, 1)
        commit(journal, 0)
        finished = journal.finished("one")
    mixed = [rows_of(0)[5], rows_of(7)[0], rows_of(1)[9], "0" * 32, "f" * 32]
    assert (finished.positions(mixed) >= 0).tolist() == [True, False, True, False, False]
    assert rows_of(1)[0] in finished
    assert rows_of(7)[0] not in finished
    assert nothing.positions(mixed).tolist() == [-1] * 5
    assert len(nothing) == 0
    assert chunks_in(finished, 9) == [0, 1]


def test_hashes_that_end_in_zeros_are_told_apart(folder):
    rows = ["0" * 32, "ab" + "0" * 30, "ab" + "0" * 29 + "1", "ab" * 15 + "00"]
    with Journal.open(folder, FINGERPRINTS) as journal:
        put(journal, rows, [1, 2, 3, 4], {0: "why"})
        finished = journal.finished("one")
    assert finished.logits[finished.positions(rows[1:]), 0].tolist() == [2, 3, 4]
    assert set(unpack_keys(finished.keys.tobytes())) == set(rows)
    assert finished.errors == {rows[0]: "why"}


def test_of_rows_committed_twice_the_last_counts(folder):
    rows = rows_of(0)[:4]
    with Journal.open(folder, FINGERPRINTS) as journal:
        put(journal, rows, [1, 2, 3, 4], {1: "out of memory", 2: "out of memory"})
        put(journal, rows[1:2], [20])  # a second attempt that succeeds
        put(journal, rows[3:], [40], {0: "late failure"})
        finished = journal.finished("one")
        values = finished.logits[finished.positions(rows), 0]
        np.testing.assert_array_equal(values, [1, 20, np.nan, np.nan])
        assert finished.errors == {rows[2]: "out of memory", rows[3]: "late failure"}
        put(journal, rows, [5, 6, 7, 8])  # the first chunk again, as a whole
        finished = journal.finished("one")
        assert finished.logits[finished.positions(rows), 0].tolist() == [5, 6, 7, 8]
        assert finished.errors == {}


def test_a_failed_row_has_nan_and_a_reason_whoever_noticed_it(folder):
    rows = rows_of(0)[:4]
    logits = np.ones((4, 2), dtype=np.float32)
    logits[2, 1], logits[3, 0] = np.nan, -np.inf
    given = logits.copy()
    with Journal.open(folder, FINGERPRINTS) as journal:
        journal.commit("one", rows, given, {0: "ünreadable", 3: "overflow"}, device="cpu", n_tokens=0, seconds=0)
        finished = journal.finished("one")
    assert given.tobytes() == logits.tobytes(), "the caller's array is not touched"
    assert np.isnan(finished.logits[finished.positions(rows)]).all(axis=1).tolist() == [True, False, True, True]
    assert finished.errors == {rows[0]: "ünreadable", rows[2]: "NaN or infinite logits", rows[3]: "overflow"}


def test_scorers_do_not_see_each_others_rows(folder):
    fingerprints = {"one": {"seed": 1}, "two": {"seed": 1}}
    with Journal.open(folder, fingerprints) as journal:
        put(journal, rows_of(0)[:1], [1], scorer="one")
        put(journal, rows_of(0)[:1], [2], scorer="two")
        assert [journal.finished(name).logits[0, 0] for name in ("one", "two")] == [1, 2]


def test_several_threads_may_commit_and_read(folder):
    with Journal.open(folder, FINGERPRINTS) as journal:

        def work(start):
            for chunk in range(start, 40, 4):
                commit(journal, chunk)
                assert rows_of(chunk)[0] in journal.finished("one")

        threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert chunks_in(journal.finished("one"), 41) == list(range(40))


def test_the_plan_is_kept_in_order_and_grows(folder):
    chunks = [rows_of(2), rows_of(0)[:1], rows_of(1)]
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert journal.chunks() == []
        journal.record_chunks(chunks)
        assert journal.chunks() == chunks
    with Journal.open(folder, FINGERPRINTS) as journal:
        journal.record_chunks([rows_of(4)])
        with pytest.raises(JournalError, match="32 hexadecimal digits"):
            journal.record_chunks([rows_of(5), ["no hash"]])
        assert journal.chunks() == [*chunks, rows_of(4)]


@pytest.mark.parametrize("rows", [["ab"], ["x" * 32], ["a" * 31, "b" * 33], ["a " * 16]])
def test_what_is_no_row_hash_is_refused(folder, rows):
    with Journal.open(folder, FINGERPRINTS) as journal:
        with pytest.raises(JournalError, match=r"32 hexadecimal digits, as Battles.content_hashes\(\) gives"):
            put(journal, rows, [0] * len(rows))
        assert len(journal.finished("one")) == 0


@pytest.mark.parametrize(
    ("logits", "errors", "words"),
    [
        (np.zeros((2, 3)), {}, r"got float64 logits of shape \(2, 3\), expected float32 \(2, n_classes\)"),
        (np.zeros((1, 3), np.float32), {}, r"shape \(1, 3\)"),
        (np.zeros(2, np.float32), {}, r"shape \(2,\)"),
        (np.zeros((2, 3), np.float32), {2: "why"}, "error for row 2 of a chunk of 2 rows"),
        (np.zeros((2, 3), np.float32), {-1: "why"}, "error for row -1"),
    ],
)
def test_results_that_do_not_fit_their_rows_are_refused(folder, logits, errors, words):
    with Journal.open(folder, FINGERPRINTS) as journal:
        with pytest.raises(JournalError, match=words):
            journal.commit("one", rows_of(0)[:2], logits, errors, device="cpu", n_tokens=0, seconds=0)
        assert len(journal.finished("one")) == 0


def test_a_scorer_that_the_journal_was_not_opened_for_is_named(folder):
    with Journal.open(folder, FINGERPRINTS) as journal:
        for call in (lambda: journal.finished("two"), lambda: commit(journal, 0, "two")):
            with pytest.raises(JournalError, match="opened for one, not for 'two'"):
                call()


def test_what_a_closed_journal_leaves_behind(folder):
    with Journal.open(folder, FINGERPRINTS) as journal:
        commit(journal, 0)
        journal.write_summary({"rows": 1})
        journal.write_summary({"rows": 200})
    journal.close()  # a second time does nothing
    assert sorted(path.name for path in folder.iterdir()) == [
        "journal.sqlite", "manifest.json", "run.lock", "summary.json",
    ]  # fmt: skip
    assert json.loads((folder / "summary.json").read_text()) == {"rows": 200}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest.pop("created").endswith("+00:00")
    assert manifest == {"lmsys_ensemble": lmsys_ensemble.__version__, "scorers": FINGERPRINTS}
    with pytest.raises(JournalError, match="closed database"):
        journal.finished("one")


# --- fingerprints ----------------------------------------------------------------------------------------------------

GEMMA = {"class": "m:Gemma", "recipe": {"max_tokens": 1024, "classes": ["a", "b"]}, "merge": None, "scale": 1}


def changed(**settings):
    return {"gemma": {**GEMMA, **settings}}


@pytest.mark.parametrize(
    ("fingerprints", "words"),
    [
        (changed(recipe={"max_tokens": 2048, "classes": ["a", "b"]}), ["recipe.max_tokens was 1024, is 2048"]),
        (changed(recipe={"max_tokens": 1024, "classes": ["b", "a"]}), ['recipe.classes was ["a", "b"], is ["b", "a"]']),
        (changed(recipe={"classes": ["a", "b"], "bos": True}), ["recipe.max_tokens was 1024, is not set",
                                                                "recipe.bos was not set, is true"]),
        (changed(recipe=None), ["recipe was not set, is null", "recipe.max_tokens was 1024, is not set"]),
        (changed(merge=False), ["merge was null, is false"]),
        (changed(scale=1.0, merge=True), ["scale was 1, is 1.0", "merge was null, is true"]),
        (changed(scale=True), ["scale was 1, is true"]),
    ],
)  # fmt: skip
def test_other_settings_are_refused_and_every_difference_is_named(folder, fingerprints, words):
    with Journal.open(folder, {"gemma": GEMMA, "other": {"seed": 1}}) as journal:
        put(journal, rows_of(0)[:1], [1], scorer="gemma")
    with pytest.raises(JournalError) as caught:
        Journal.open(folder, {**fingerprints, "other": {"seed": 1}})
    for difference in words:
        assert f"scorer 'gemma': {difference}" in str(caught.value)
    assert str(caught.value).count("scorer '") == str(caught.value).count(" was ")
    assert "'other'" not in str(caught.value)
    assert "old settings, give another run directory, or pass rescore=True to score anew" in str(caught.value)
    with Journal.open(folder, {"gemma": GEMMA}) as journal:  # nothing was changed, and nothing is locked
        assert len(journal.finished("gemma")) == 1


def test_all_scorers_that_differ_are_named(folder):
    Journal.open(folder, {"a": {"seed": 1}, "b": {"seed": 1}}).close()
    with pytest.raises(JournalError, match=r"'a': seed was 1, is 2; scorer 'b': seed was 1, is 3\. Go on"):
        Journal.open(folder, {"a": {"seed": 2}, "b": {"seed": 3}})


def test_rescoring_sets_old_results_aside_until_their_settings_come_back(folder):
    rows = rows_of(0)[:2]
    with Journal.open(folder, {"a": {"seed": 1}}) as journal:
        put(journal, rows, [1, 1], scorer="a")
    with Journal.open(folder, {"a": {"seed": 2}}, rescore=True) as journal:
        assert len(journal.finished("a")) == 0
        put(journal, rows[:1], [2], scorer="a")
    with Journal.open(folder, {"a": {"seed": 2}}) as journal:
        assert journal.finished("a").logits[:, 0].tolist() == [2]
    with pytest.raises(JournalError, match="seed was 2, is 1"):
        Journal.open(folder, {"a": {"seed": 1}})
    with Journal.open(folder, {"a": {"seed": 1}}, rescore=True) as journal:
        assert journal.finished("a").logits[:, 0].tolist() == [1, 1]
    assert json.loads((folder / "manifest.json").read_text())["scorers"] == {"a": {"seed": 1}}


def test_scorers_may_come_and_go(folder):
    with Journal.open(folder, {"a": {"seed": 1}}) as journal:
        put(journal, rows_of(0)[:1], [1], scorer="a")
    with Journal.open(folder, {"b": {"seed": 1}}) as journal:
        put(journal, rows_of(0)[:1], [2], scorer="b")
    assert json.loads((folder / "manifest.json").read_text())["scorers"] == {"a": {"seed": 1}, "b": {"seed": 1}}
    with Journal.open(folder, {"a": {"seed": 1}, "b": {"seed": 1}, "c": {}}) as journal:
        assert [len(journal.finished(name)) for name in "abc"] == [1, 1, 0]
    with pytest.raises(JournalError, match="'b': seed was 1, is 2"):
        Journal.open(folder, {"b": {"seed": 2}})


def test_the_order_of_keys_and_tuples_for_lists_make_no_difference(folder):
    Journal.open(folder, {"a": {"x": 1, "y": ("b", "c")}}).close()
    Journal.open(folder, {"a": {"y": ["b", "c"], "x": 1}}).close()


def test_a_fingerprint_that_is_no_json_is_refused_before_anything_is_made(folder):
    with pytest.raises(ContractError, match=r"scorer 'a': fingerprint\(\) must hold JSON values only"):
        Journal.open(folder, {"a": {"path": Path("x")}})
    assert not folder.exists()


# --- whose directory it is -------------------------------------------------------------------------------------------


def test_a_directory_with_somebody_elses_files_is_refused_and_not_touched(folder):
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("ten years of work")
    with pytest.raises(
        JournalError, match=r"not empty and no run directory: it holds thesis.tex and no journal.sqlite"
    ):
        Journal.open(folder, FINGERPRINTS)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_directory(folder):
    folder.parent.mkdir()
    folder.write_text("a file")
    with pytest.raises(JournalError, match="is a file, expected the directory of a run"):
        Journal.open(folder, FINGERPRINTS)
    assert folder.read_text() == "a file"


@pytest.mark.parametrize(
    "left", [[], ["run.lock"], ["run.lock", ".holder.json.x7f"], ["run.lock", "holder.json", "journal.sqlite"]]
)
def test_what_a_process_leaves_that_was_killed_while_it_made_the_directory_is_taken_over(folder, left):
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).touch()
    with Journal.open(folder, FINGERPRINTS) as journal:
        commit(journal, 0)
        assert chunks_in(journal.finished("one"), 1) == [0]


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


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ten_chunks(folder):
    """Return a run directory with ten finished chunks and a plan, closed."""
    with Journal.open(folder, FINGERPRINTS) as journal:
        journal.record_chunks([rows_of(chunk) for chunk in range(10)])
        for chunk in range(10):
            commit(journal, chunk)
    return folder


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


def test_a_record_whose_bits_have_changed_is_scored_again(ten_chunks, caplog):
    path = ten_chunks / "journal.sqlite"
    data = path.read_bytes()
    logits = logits_of(6).tobytes()
    start = data.find(logits[:400])
    assert start > 0
    path.write_bytes(data[: start + 9] + bytes([data[start + 9] ^ 1]) + data[start + 10 :])
    with Journal.open(ten_chunks, FINGERPRINTS) as journal:
        assert chunks_in(journal.finished("one"), 10) == [0, 1, 2, 3, 4, 5, 7, 8, 9]
        assert "a chunk in the journal is damaged" in caplog.text
        commit(journal, 6)
        assert chunks_in(journal.finished("one"), 10) == list(range(10))


def test_a_plan_whose_bits_have_changed_is_refused(ten_chunks):
    connection = sqlite3.connect(ten_chunks / "journal.sqlite")
    connection.execute("UPDATE plan SET row_hashes = zeroblob(32) WHERE position = 3")
    connection.commit()
    connection.close()
    with (
        Journal.open(ten_chunks, FINGERPRINTS) as journal,
        pytest.raises(JournalError, match=r"journal.sqlite is damaged .* the plan of chunks has changed"),
    ):
        journal.chunks()


# --- two processes ---------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from tests.journal.journal_writer import FINGERPRINTS, Journal, commit
with Journal.open(sys.argv[1], FINGERPRINTS) as journal:
    commit(journal, 0)
    print("open", flush=True)
    sys.stdin.readline()
"""


@posix
def test_a_second_process_is_refused_and_told_who_is_there_until_the_first_dies(folder):
    with started(HOLDER, folder) as process:
        assert process.stdout.readline() == "open\n"
        assert find_holder(folder) == process.pid
        with pytest.raises(JournalError, match=rf"night is in use by process {process.pid}\. Wait until it ends"):
            Journal.open(folder, FINGERPRINTS)
        assert find_holder(folder) == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    assert find_holder(folder) is None
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert find_holder(folder) == os.getpid()
        assert chunks_in(journal.finished("one"), 2) == [0]


def test_a_second_journal_in_one_process_is_refused_too(folder):
    with (
        Journal.open(folder, FINGERPRINTS),
        pytest.raises(JournalError, match=f"in use by process {os.getpid()}"),
    ):
        Journal.open(folder, FINGERPRINTS)
    Journal.open(folder, FINGERPRINTS).close()


def test_a_journal_closed_in_another_thread_lets_others_in(folder):
    journal = Journal.open(folder, FINGERPRINTS)
    thread = threading.Thread(target=journal.close)
    thread.start()
    thread.join(PATIENCE)
    Journal.open(folder, FINGERPRINTS).close()


# --- a process that is killed ----------------------------------------------------------------------------------------


@posix
def test_no_kill_loses_an_acknowledged_chunk_or_leaves_half_of_one(folder):
    chance = random.Random(5)
    acknowledged = set()
    for _ in range(25):
        with started("tests.journal.journal_writer", folder, 10_000) as process:
            lines = process.stdout.readline()
            time.sleep(chance.uniform(0, 0.08))
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read()  # communicate() would lose what readline() has read ahead
            process.wait(PATIENCE)
        assert process.returncode == -signal.SIGKILL
        written = [int(line) for line in lines.splitlines(keepends=True) if line.endswith("\n")]
        assert written
        assert acknowledged.isdisjoint(written), "a finished chunk was done again"
        acknowledged.update(written)
        with Journal.open(folder, FINGERPRINTS) as journal:
            present = set(chunks_in(journal.finished("one"), max(acknowledged) + 4))
        assert acknowledged <= present
        assert len(present - acknowledged) <= 2, "one a thread, killed between commit and acknowledgement"
        acknowledged = present
    n_chunks = max(acknowledged) + 5
    code, output = run("tests.journal.journal_writer", folder, n_chunks)
    assert code == 0
    assert acknowledged.isdisjoint(map(int, output.split()))
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert chunks_in(journal.finished("one"), n_chunks) == list(range(n_chunks))


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


# --- a full disk -----------------------------------------------------------------------------------------------------

FULL_DISK = """
import resource, signal, sys
from lmsys_ensemble.errors import JournalError
from tests.journal.journal_writer import FINGERPRINTS, Journal, chunks_in, commit

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
with Journal.open(sys.argv[1], FINGERPRINTS) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
    for chunk in range(1_000):
        try:
            commit(journal, chunk)
        except JournalError as error:
            print(chunk, error, flush=True)
            break
    assert chunks_in(journal.finished("one"), chunk + 1) == list(range(chunk))
    try:
        journal.write_summary({"text": "x" * 400_000})
    except JournalError as error:
        print(error, flush=True)
    if sys.argv[2] == "freed":
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        commit(journal, chunk)
"""


@posix
@pytest.mark.parametrize("later", ["freed", "full"])
def test_on_a_full_disk_the_error_says_how_to_go_on_and_finished_chunks_stay(folder, later):
    code, output = run(FULL_DISK, folder, later)
    assert code == 0
    first, second = output.splitlines()
    n_chunks, message = first.split(" ", 1)
    n_chunks = int(n_chunks)
    assert n_chunks > 5
    for text in (message, second):
        assert text.startswith(f"{folder} cannot be written, its disk or quota is probably full (")
        assert "finished before are kept; free some space and start the same run again" in text
    assert not (folder / "summary.json").exists()
    with Journal.open(folder, FINGERPRINTS) as journal:
        expected = list(range(n_chunks + (later == "freed")))
        assert chunks_in(journal.finished("one"), n_chunks + 2) == expected
        commit(journal, len(expected))
        assert chunks_in(journal.finished("one"), n_chunks + 2) == [*expected, len(expected)]


NO_ROOM = """
import resource, signal, sys
from lmsys_ensemble.errors import JournalError
from tests.journal.journal_writer import FINGERPRINTS, Journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for allowed in (0, 1_000, 5_000, 10_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, most))
    try:
        Journal.open(sys.argv[1], FINGERPRINTS).close()
    except JournalError as error:
        print(error, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
Journal.open(sys.argv[1], FINGERPRINTS).close()
"""


@posix
def test_a_disk_that_is_full_from_the_start_leaves_a_directory_that_can_be_used_later(folder):
    code, output = run(NO_ROOM, folder)
    assert code == 0
    assert len(output.splitlines()) == 4
    assert all("its disk or quota is probably full" in line for line in output.splitlines())


def test_the_constants_of_the_made_up_chunks_are_what_tests_count_on():
    assert len(set(rows_of(0)) | set(rows_of(1))) == 2 * N_ROWS
    assert np.isnan(logits_of(3)).any(axis=1).nonzero()[0].tolist() == list(errors_of(3))
