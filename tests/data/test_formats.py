"""Names of files and what they say, packed files, and pipes."""

import csv
import gzip
import io
import os
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data import formats
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.formats import TableFormat, table_format
from lmsys_ensemble.data.tables import encode_table, read_table
from lmsys_ensemble.errors import InputError

PATIENCE = 300
"""Seconds that a thread may take to end."""

NAMES = ["t.csv", "t.tsv", "t.jsonl", "t.csv.gz", "t.tsv.gz", "t.jsonl.gz", "t.parquet"]


@pytest.fixture
def numbers():
    """Return a table whose numbers need all their digits, with texts that formats like to misread."""
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": ["007", "a,b\tc", 'quo"ted', "ü"],
            "winner_model_a": generator.random(4),
            "winner_model_b": generator.random(4) * 1e-300,
            "winner_tie": [0.1, 1 / 3, 1.0, 0.0],
            "fallback": ["", "null", "a\r=b", "two\nlines"],
        }
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_table_comes_back_with_all_its_digits(name, numbers, tmp_path):
    path = tmp_path / name
    path.write_bytes(encode_table(numbers, path))
    read = read_table(path)
    assert read.columns.tolist() == numbers.columns.tolist()
    assert read["id"].tolist() == numbers["id"].tolist()
    assert read["fallback"].tolist() == numbers["fallback"].tolist()
    np.testing.assert_allclose(read.iloc[:, 1:4], numbers.iloc[:, 1:4], rtol=1e-15)
    assert encode_table(numbers, path) == encode_table(numbers, path), "the same table gives the same bytes"
    assert path.read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_a_bare_carriage_return_does_not_end_a_row(name):
    content = encode_table(pd.DataFrame({"id": [7], "note": ["a\r=b"], "x": [0.5]}), name).decode()
    rows = list(csv.reader(io.StringIO(content, newline=""), delimiter="\t" if name == "t.tsv" else ","))
    assert rows == [["id", "note", "x"], ["7", "a\r=b", "0.5"]]


@pytest.mark.parametrize("name", NAMES)
def test_battles_of_every_format_are_the_same(name, battles_table, tmp_path):
    path = tmp_path / name
    path.write_bytes(encode_table(battles_table, path))
    read, expected = parse_battles(read_table(path)), parse_battles(battles_table)
    assert list(read) == list(expected)
    assert read.ids.dtype == expected.ids.dtype == "int64"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.CSV", TableFormat("csv")), ("a.b.tsv", TableFormat("tsv")), ("a.pq", TableFormat("parquet")),
        ("a.csv.GZ", TableFormat("csv", packed=True)), ("a.jsonl.gz", TableFormat("jsonl", packed=True)),
        ("a.gz", None), ("a.parquet.gz", None), ("a.json", None), ("csv", None), ("a", None), ("a.csv.bz2", None),
    ],
)  # fmt: skip
def test_a_name_says_the_format(name, expected):
    assert table_format(name) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.parquet.gz", r"got '\.parquet\.gz'"), ("a.json", r"must end in .*\.jsonl.*got '\.json'"), ("a", "no suffix")],
)
def test_a_name_that_says_no_format_is_refused(name, words, tmp_path):
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(InputError, match=words):
        read_table(tmp_path / name)


def test_a_folder_a_device_and_a_loop_are_no_tables(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    for path, words in (("folder.csv", "is a folder"), ("loop.csv", "there is no file"), ("/dev/zero", "a device")):
        with pytest.raises(InputError, match=words):
            read_table(tmp_path / path)


# --- packed files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: b"no gzip", lambda data: data[:-6] + b"\x00" * 6,
     lambda data: data[:12] + b"\xff" * 20 + data[32:]],
    ids=["cut", "not packed", "checksum", "damaged"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_damaged_gzip_file_is_named(damage, kind, battles_table, tmp_path):
    path = tmp_path / f"battles.{kind}.gz"
    path.write_bytes(damage(encode_table(battles_table, path)))
    with pytest.raises(InputError, match=rf"battles\.{kind}\.gz is no whole gzip file: .*again"):
        read_table(path)


def test_a_gzip_file_that_unpacks_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "INFLATION_FREE_BYTES", 1 << 20)
    for content in (b"id,prompt\n1," + b"x" * (50 << 20), b'{"id": "' + b"x" * (50 << 20)):
        path = tmp_path / ("bomb.csv.gz" if content.startswith(b"id") else "bomb.jsonl.gz")
        path.write_bytes(gzip.compress(content))
        with pytest.raises(InputError, match=r"unpacks to more than [\d,]+ bytes, 200 times its own size"):
            read_table(path)


# --- pipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_is_read_once_and_known_by_its_first_bytes(name, battles_table, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = encode_table(battles_table, name)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,), daemon=True)
    writer.start()
    table = read_table(pipe)
    writer.join(PATIENCE)
    assert list(parse_battles(table)) == list(parse_battles(battles_table))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"\x1f\x8bjunk", "no whole gzip file"), (gzip.compress(b"{", mtime=0) * 2, "no JSON"),
     (gzip.compress(gzip.compress(b"id", mtime=0), mtime=0), "packed by gzip"), (b"PAR1", "cannot be read as parquet")],
    ids=["empty", "no gzip", "json", "packed twice", "parquet"],
)  # fmt: skip
def test_what_comes_through_a_pipe_and_is_no_table_is_named(content, words, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,), daemon=True)
    writer.start()
    with pytest.raises(InputError, match=words):
        read_table(tmp_path / "pipe")
    writer.join(PATIENCE)


@pytest.mark.parametrize("redirected", [True, False], ids=["file", "pipe"])
def test_standard_input_is_read_from_its_beginning(redirected, battles_table, tmp_path):
    path = tmp_path / "test.csv"
    path.write_bytes(encode_table(battles_table, path))
    command = [sys.executable, "-c", "from lmsys_ensemble import read_table; print(len(read_table('/dev/stdin')))"]
    if redirected:
        with open(path, "rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, check=True)
    else:
        done = subprocess.run(command, input=path.read_bytes(), capture_output=True, check=True)
    assert done.stdout == b"5\n"
