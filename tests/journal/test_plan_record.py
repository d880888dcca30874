"""The recorded plan of chunks: kept in order, and its digests."""

import sqlite3

import pytest

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.journal import Journal
from tests.journal.journal_writer import FINGERPRINTS, rows_of


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
