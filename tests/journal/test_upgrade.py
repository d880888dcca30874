"""Journals as the first version of the library wrote them."""

import hashlib
import json
import sqlite3

import pytest

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.database import SCHEMA_VERSION
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.journal.status import read_run
from tests.journal.journal_writer import FINGERPRINTS, N_ROWS, chunks_in, commit, errors_of, logits_of, rows_of

N_CHUNKS = 6

TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE plan (position INTEGER PRIMARY KEY, row_hashes BLOB NOT NULL, digest BLOB NOT NULL)",
    """CREATE TABLE fingerprints (
    scorer TEXT NOT NULL, digest TEXT NOT NULL, settings TEXT NOT NULL, is_current INTEGER NOT NULL,
    PRIMARY KEY (scorer, digest)
)""",
    """CREATE TABLE results (
    position INTEGER PRIMARY KEY,
    scorer TEXT NOT NULL, fingerprint TEXT NOT NULL, chunk BLOB NOT NULL,
    row_hashes BLOB NOT NULL, n_classes INTEGER NOT NULL, logits BLOB NOT NULL, errors TEXT NOT NULL,
    checksum BLOB NOT NULL,
    device TEXT NOT NULL, n_tokens INTEGER NOT NULL, seconds REAL NOT NULL, committed_at REAL NOT NULL,
    UNIQUE (scorer, fingerprint, chunk)
)""",
)


def digest(data):
    return hashlib.blake2b(data, digest_size=16).digest()


@pytest.fixture
def folder(tmp_path):
    """Return a run directory of the first version: six chunks, all of them planned."""
    folder = tmp_path / "night"
    folder.mkdir()
    connection = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in TABLES:
        connection.execute(statement)
    connection.execute("INSERT INTO facts VALUES ('created', '2026-01-01T00:00:00+00:00'), ('lmsys_ensemble', '0.3')")
    settings = json.dumps(FINGERPRINTS["one"], sort_keys=True)
    fingerprint = hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()
    connection.execute("INSERT INTO fingerprints VALUES ('one', ?, ?, 1)", (fingerprint, settings))
    for chunk in range(N_CHUNKS):
        rows = bytes.fromhex("".join(rows_of(chunk)))
        logits, errors = (
            logits_of(chunk).tobytes(),
            json.dumps({str(row): why for row, why in errors_of(chunk).items()}),
        )
        connection.execute("INSERT INTO plan (row_hashes, digest) VALUES (?, ?)", (rows, digest(rows)))
        connection.execute(
            "INSERT INTO results (scorer, fingerprint, chunk, row_hashes, n_classes, logits, errors, checksum, device,"
            " n_tokens, seconds, committed_at) VALUES ('one', ?, ?, ?, 3, ?, ?, ?, 'cpu', 7, 0.5, 1.0)",
            (fingerprint, digest(rows), rows, logits, errors, digest(rows + logits + errors.encode())),
        )
    connection.execute(f"PRAGMA application_id = {0x4C4D5359}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    return folder


def change(folder, statement):
    connection = sqlite3.connect(folder / "journal.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()


def version(folder):
    connection = sqlite3.connect(folder / "journal.sqlite")
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return number


def test_a_journal_of_the_first_version_goes_on_as_one_of_this(folder):
    report = read_run(folder)
    assert (report.scorers[0].n_rows, report.scorers[0].n_failed) == (N_CHUNKS * N_ROWS, N_CHUNKS)
    assert version(folder) == 1  # whoever only looks changes nothing
    for _ in range(2):
        with Journal.open(folder, FINGERPRINTS) as journal:
            assert journal.chunks() == [rows_of(chunk) for chunk in range(N_CHUNKS)]
            assert chunks_in(journal.finished("one"), N_CHUNKS + 1) == list(range(N_CHUNKS))
        assert version(folder) == SCHEMA_VERSION
    with Journal.open(folder, FINGERPRINTS) as journal:
        journal.record_chunks([rows_of(N_CHUNKS)])
        commit(journal, N_CHUNKS)
        commit(journal, 0)  # the same chunk again takes the place of the old record
        assert chunks_in(journal.finished("one"), N_CHUNKS + 1) == list(range(N_CHUNKS + 1))
        assert journal.chunks()[-1] == rows_of(N_CHUNKS)
    assert read_run(folder).scorers[0].n_chunks == N_CHUNKS + 1


def test_a_record_that_had_changed_before_is_not_made_good(folder, caplog):
    change(folder, "UPDATE results SET logits = zeroblob(length(logits)) WHERE position = 2")
    for _ in range(2):
        with Journal.open(folder, FINGERPRINTS) as journal:
            assert chunks_in(journal.finished("one"), N_CHUNKS) == [0, 2, 3, 4, 5]
        assert "a chunk in the journal is damaged" in caplog.text
        caplog.clear()


def test_a_record_with_another_number_of_classes_than_its_logits_is_not_read(folder):
    change(folder, "UPDATE results SET n_classes = 2 WHERE position = 2")
    assert read_run(folder).scorers[0].n_chunks == N_CHUNKS - 1
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert chunks_in(journal.finished("one"), N_CHUNKS) == [0, 2, 3, 4, 5]


def test_a_plan_that_has_changed_is_refused_and_the_journal_stays_as_it_is(folder):
    change(folder, "UPDATE plan SET row_hashes = zeroblob(32) WHERE position = 3")
    for _ in range(2):
        with pytest.raises(JournalError, match=r"journal.sqlite is damaged .* the plan of chunks has changed"):
            Journal.open(folder, FINGERPRINTS)
        assert version(folder) == 1


def test_an_index_that_contradicts_its_table_is_refused_as_nothing_else_tells_whose_a_record_is(folder):
    path = folder / "journal.sqlite"
    data = path.read_bytes()
    places = [place for place in range(len(data)) if data.startswith(b"one" + digest_of_one().encode(), place)]
    assert len(places) > N_CHUNKS
    flipped = bytearray(data)
    flipped[places[-1] : places[-1] + 3] = b"two"
    path.write_bytes(flipped)
    with pytest.raises(JournalError, match=r"journal.sqlite is damaged .*Put back a copy of it, or start afresh"):
        Journal.open(folder, FINGERPRINTS)


def digest_of_one():
    return hashlib.blake2b(json.dumps(FINGERPRINTS["one"], sort_keys=True).encode(), digest_size=16).hexdigest()


def test_a_journal_is_brought_up_to_date_as_a_whole_or_not_at_all(folder, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lmsys_ensemble.journal.upgrade.append_plan", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Journal.open(folder, FINGERPRINTS)
    assert version(folder) == 1
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert chunks_in(journal.finished("one"), N_CHUNKS) == list(range(N_CHUNKS))
