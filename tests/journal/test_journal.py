"""The journal of a run: what is committed comes back, whatever happens to the process."""

import json
import random
import signal
import threading
import time

import numpy as np
import pytest

import lmsys_ensemble
from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.finished import unpack_keys
from lmsys_ensemble.journal.journal import Journal
from tests.journal.journal_writer import (
    FINGERPRINTS,
    N_ROWS,
    chunks_in,
    commit,
    errors_of,
    logits_of,
    put,
    rows_of,
    write_to,
)
from tests.journal.processes import PATIENCE, forked, posix, run


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


# --- damage ----------------------------------------------------------------------------------------------------------


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


# --- a process that is killed ----------------------------------------------------------------------------------------


@posix
def test_no_kill_loses_an_acknowledged_chunk_or_leaves_half_of_one(folder):
    chance = random.Random(5)
    acknowledged = set()
    for _ in range(25):
        with forked(write_to, folder, 10_000) as (process, acknowledgements):
            lines = acknowledgements.readline()
            time.sleep(chance.uniform(0, 0.08))
            process.kill()
            lines += acknowledgements.read()
            process.join(PATIENCE)
            assert process.exitcode == -signal.SIGKILL
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


def test_the_constants_of_the_made_up_chunks_are_what_tests_count_on():
    assert len(set(rows_of(0)) | set(rows_of(1))) == 2 * N_ROWS
    assert np.isnan(logits_of(3)).any(axis=1).nonzero()[0].tolist() == list(errors_of(3))
