"""Bits that flip anywhere in a journal: an error that says so, or what was committed, and never other numbers."""

import os
import random
import sqlite3
from dataclasses import fields, replace

import numpy as np
import pytest

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.database import open_database
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.journal.records import Record, checksum_of, digest_of_bytes, read_records
from lmsys_ensemble.journal.status import read_run
from tests.journal.journal_writer import rows_of

FINGERPRINTS = {"one": {"seed": 1}, "two": {"seed": 2}}
SEEDS = {"one": 1, "two": 2, "one before": 3}
N_CHUNKS, CHUNK = 8, 30
N_DRAWS = 130
"""How many bits are drawn of what is used, and of indices."""


def rows(chunk):
    return rows_of(chunk)[:CHUNK]


def logits(chunk, whose):
    values = np.random.default_rng([chunk, SEEDS[whose]]).standard_normal((CHUNK, 3), dtype=np.float32)
    values[chunk] = np.nan
    return values


def commit(journal, chunk, scorer, whose):
    why = {chunk: f"{whose} failed in chunk {chunk}"}
    journal.commit(scorer, rows(chunk), logits(chunk, whose), why, device="cpu", n_tokens=9, seconds=1.0)


@pytest.fixture
def folder(tmp_path):
    """Return a run directory: the same rows by two scorers, and by one of them under other settings, too."""
    folder = tmp_path / "night"
    with Journal.open(folder, {"one": {"seed": 0}, "two": {"seed": 2}}) as journal:
        journal.record_chunks([rows(chunk) for chunk in range(N_CHUNKS)])
        for chunk in range(N_CHUNKS):
            commit(journal, chunk, "one", "one before")
            commit(journal, chunk, "two", "two")
    with Journal.open(folder, FINGERPRINTS, rescore=True) as journal:
        for chunk in range(N_CHUNKS):
            commit(journal, chunk, "one", "one")
    return folder


def n_right(journal, scorer):
    """Return the number of rows that a scorer has, after making sure that they are what was committed."""
    finished, n_rows = journal.finished(scorer), 0
    for chunk in range(N_CHUNKS):
        positions = finished.positions(rows(chunk))
        assert len({position >= 0 for position in positions.tolist()}) == 1, "a chunk is there in part"
        if positions[0] >= 0:
            assert finished.logits[positions].tobytes() == logits(chunk, scorer).tobytes()
            assert finished.errors[rows(chunk)[chunk]] == f"{scorer} failed in chunk {chunk}"
            n_rows += CHUNK
    assert len(finished) == n_rows
    assert len(finished.errors) * CHUNK == n_rows
    return n_rows


def places_to_flip(data, path):
    """Return bits, drawn with a fixed seed: of the whole file, of its header, and of what indices and tables hold."""
    connection = sqlite3.connect(path)
    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    roots = [page for (page,) in connection.execute("SELECT rootpage FROM sqlite_schema WHERE type = 'index'")]
    connection.close()
    assert len(roots) == 3
    chance = random.Random(7)
    used = [place for place, byte in enumerate(data) if byte]
    in_indices = [place for place in used if place // page_size + 1 in roots]
    chosen = [chance.randrange(len(data)) for _ in range(100)] + list(range(100))
    chosen += chance.choices(used, k=N_DRAWS) + chance.choices(in_indices, k=N_DRAWS)
    return [(place, chance.randrange(8)) for place in chosen]


def test_a_flipped_bit_is_told_or_costs_a_chunk_and_never_changes_a_number(folder, monkeypatch):
    path = folder / "journal.sqlite"
    data = path.read_bytes()
    places = places_to_flip(data, path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    whole, in_part, refused = 0, 0, 0
    for place, bit in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        for log in ("-wal", "-shm"):
            path.with_name(path.name + log).unlink(missing_ok=True)
        try:
            read_run(folder)
            with Journal.open(folder, FINGERPRINTS) as journal:
                n_rows = [n_right(journal, scorer) for scorer in FINGERPRINTS]
                assert journal.chunks() == [rows(chunk) for chunk in range(N_CHUNKS)]
                journal._connection.execute("PRAGMA synchronous = OFF")  # a thousand files that nobody needs
                if min(n_rows) < N_CHUNKS * CHUNK:  # the rest of the run
                    for chunk in range(N_CHUNKS):
                        commit(journal, chunk, "one", "one")
                    assert n_right(journal, "one") == N_CHUNKS * CHUNK
        except JournalError:
            refused += 1
        else:
            whole += n_rows == [N_CHUNKS * CHUNK] * 2
            in_part += n_rows != [N_CHUNKS * CHUNK] * 2
    assert min(whole, in_part, refused) > 30
    assert whole + in_part + refused == len(places)


@pytest.mark.parametrize("column", ["scorer", "fingerprint", "chunk", "row_hashes", "n_classes", "logits", "errors"])
def test_a_record_is_taken_for_nobody_elses(folder, column, caplog):
    connection = sqlite3.connect(folder / "journal.sqlite")
    query = f"SELECT {column} FROM results WHERE position = ?"
    (mine,), (other,) = (connection.execute(query, (position,)).fetchone() for position in (17, 4))
    value = {"scorer": "two", "n_classes": 9}.get(column, other)
    assert value != mine
    # What else tells them apart has to go first, so that nothing but the checksum is left to notice.
    connection.execute("DELETE FROM results WHERE position IN (4, 18) OR (position % 2 = 1 AND position < 16)")
    connection.execute(f"UPDATE results SET {column} = ? WHERE position = 17", (value,))
    connection.commit()
    connection.close()
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert [n_right(journal, "one"), n_right(journal, "two")] == [6 * CHUNK, 7 * CHUNK]
    assert "a chunk in the journal is damaged; its rows are taken for not scored" in caplog.text


def test_a_damaged_index_is_built_anew(folder, caplog):
    path = folder / "journal.sqlite"
    connection = sqlite3.connect(path)
    (digest,) = connection.execute("SELECT fingerprint FROM results WHERE scorer = 'two'").fetchone()
    (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name LIKE '%results%' AND type = 'index'")
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    start = data.find(b"two" + digest.encode(), (root[0] - 1) * size, root[0] * size)
    assert start > 0
    data[start : start + 3] = b"one"
    path.write_bytes(data)
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert [n_right(journal, scorer) for scorer in FINGERPRINTS] == [N_CHUNKS * CHUNK] * 2
    assert "an index is damaged" in caplog.text
    caplog.clear()
    Journal.open(folder, FINGERPRINTS).close()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "UPDATE fingerprints SET settings = '{\"seed\"; 1}' WHERE scorer = 'one'",
            "the settings of scorer 'one' have",
        ),
        ("UPDATE fingerprints SET settings = x'00' WHERE scorer = 'two'", "the settings of scorer 'two' have"),
        ("UPDATE facts SET name = 'creatde' WHERE name = 'created'", "does not say when and by what"),
        ("UPDATE plan SET position = position + 100 WHERE position = 3", "the plan of chunks has changed"),
        ("DELETE FROM plan WHERE position = 4", "the plan of chunks has changed"),
        ("UPDATE plan SET row_hashes = 'text' WHERE position = 1", "the plan of chunks has changed"),
        ("DROP TABLE results", "its tables are not those of a journal"),
        ("PRAGMA user_version = 0", "its tables are not those of a journal"),
    ],
)
def test_what_has_changed_beside_the_records_is_told_too(folder, statement, words):
    connection = sqlite3.connect(folder / "journal.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match=rf"journal.sqlite is damaged .*{words}.*Put back a copy"):  # noqa: SIM117
        with Journal.open(folder, FINGERPRINTS, rescore=True) as journal:
            journal.chunks()


def test_logits_of_two_widths_under_the_same_settings_are_refused_in_words(folder):
    with Journal.open(folder, FINGERPRINTS) as journal:
        ones = np.ones((CHUNK, 2), np.float32)
        journal.commit("two", rows_of(20)[:CHUNK], ones, {}, device="cpu", n_tokens=0, seconds=0)
        with pytest.raises(JournalError, match=r"logits of 2 and of 3 classes of scorer 'two'.*fingerprint\(\) say"):
            journal.finished("two")


def test_a_checksum_covers_every_column_and_knows_where_one_ends(folder):
    connection = open_database(folder / "journal.sqlite")
    record = next(record for _, record, _ in read_records(connection, 2))
    connection.close()
    for field in fields(Record):
        value = getattr(record, field.name)
        other = value + (b"\0" if isinstance(value, bytes) else "x" if isinstance(value, str) else 1)
        assert replace(record, **{field.name: other}).checksum != record.checksum
    moved = replace(record, row_hashes=record.row_hashes + record.logits[:4], logits=record.logits[4:])
    assert moved.checksum != record.checksum
    assert moved.first_checksum == record.first_checksum  # what version 1 did not notice
    assert checksum_of(b"ab", b"c") != checksum_of(b"a", b"bc")
    assert len(digest_of_bytes(b"")) == 16
