"""Finished rows of a scorer: found by their hashes, the last commit first."""

import numpy as np
import pytest

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.finished import unpack_keys
from lmsys_ensemble.journal.journal import Journal
from tests.journal.journal_writer import FINGERPRINTS, chunks_in, commit, put, rows_of


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


@pytest.mark.parametrize("rows", [["ab"], ["x" * 32], ["a" * 31, "b" * 33], ["a " * 16]])
def test_what_is_no_row_hash_is_refused(folder, rows):
    with Journal.open(folder, FINGERPRINTS) as journal:
        with pytest.raises(JournalError, match=r"32 hexadecimal digits, as Battles.content_hashes\(\) gives"):
            put(journal, rows, [0] * len(rows))
        assert len(journal.finished("one")) == 0
