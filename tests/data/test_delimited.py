"""Comma- and tab-separated files: what pandas would take silently for something else is refused with its line."""

import csv
import gzip
import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.predictions import read_labels
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.errors import InputError

HEADER = "id,prompt,response_a,response_b\n"


def write(folder, content, name="battles.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("7,p,a,b,\n8,q,c,d,\n", r"line 2 \(which begins with '7'\) has 5, line 3 .* end in a separator too many"),
        ("7,p,a,b\n8,q,c,d,\n", r"line 3 \(which begins with '8'\) has 5\. .*too many"),
        ("7,p,a,b\n8,q,c\n", r"line 3 \(which begins with '8'\) has 3\. .*must stand in double quotes"),
        ("7,p, and more,a,b\n", r"line 2 .* has 5\. .*must stand in double quotes"),
        ('7,"p\n\n1",a,b\n8,"q\r\nr",c\n9,r,e,f,g\n', r"line 5 \(which begins with '8'\) has 3, line 7 .* has 5"),
        ("7,p,a,b\r\n8,q,c\r\n", r"line 3 .* has 3"),
        ("7,p,a,b\r8,q,c\r", r"line 3 .* has 3"),
        ("\n\n7,p,a,b\n\n8,q,c\n", r"line 6 .* has 3"),
        ("7,p,a,b\n" + "8,q,c\n" * 9, r"line 7 .* has 3, and 4 more"),
        ('7,p,a,"b\n8,q,c,d\n', r"begins in line 2: a field's opening quote has no closing one"),
        ('7,p,"a" or not,b\n', r"begins in line 2: text follows a closing quote"),
        ('7,p,a,b\n""\n', r"line 3 \(which begins with ''\) has 1"),
        ("7,p,a,b\n\u3000\n", r"line 3 .* has 1"),
    ],
)
def test_rows_of_another_width_than_the_header_are_named_by_line(rows, words, tmp_path):
    path = write(tmp_path, HEADER + rows)
    with pytest.raises(InputError, match=rf"battles\.csv.*{words}"):
        read_table(path)


def test_no_column_is_shifted_where_pandas_would_shift_them(tmp_path):
    path = write(tmp_path, HEADER + "7,p,a,b,\n")
    assert pd.read_csv(path)["id"].tolist() == ["p"], "the fault is still there to be caught"
    with pytest.raises(InputError, match="must have 4 fields"):
        read_table(path)


def test_an_empty_first_field_after_a_blank_line_that_ends_in_a_carriage_return_is_not_lost(tmp_path):
    path = write(tmp_path, b"source,id,prompt,response_a,response_b\rx,7,p,a,b\r\r,8,q,c,d\r")
    assert pd.read_csv(path, dtype=str)["source"].tolist() == ["x", "8"], "the fault is still there to be caught"
    with pytest.raises(InputError, match="line 4 begins with an empty field, and the blank line before"):
        read_table(path)


@given(
    st.lists(st.tuples(*[st.text(st.sampled_from('a,"\n\r \t;ü')) for _ in range(3)]), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
)
def test_every_text_that_is_quoted_properly_comes_back(tmp_path_factory, rows, end):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "prompt", "response_a", "response_b"], *([n, *row] for n, row in enumerate(rows))])
    path = write(tmp_path_factory.getbasetemp(), buffer.getvalue(), "any.csv")
    table = read_table(path)
    assert table["id"].tolist() == list(range(len(rows)))
    assert table[["prompt", "response_a", "response_b"]].to_numpy().tolist() == [list(row) for row in rows]


def test_blank_lines_and_a_missing_last_line_end_are_no_faults(tmp_path):
    path = write(tmp_path, f"\n{HEADER}\n7,p,a,b\n   \n\r\n8,q,c,d")
    assert read_table(path)["id"].tolist() == [7, 8]


def test_a_column_without_a_name_does_not_shift_the_others(tmp_path):
    path = write(tmp_path, "id,prompt,response_a,response_b,\n7,p,a,b,\n")
    assert parse_battles(read_table(path))[0].response_b == ("b",)


def test_a_column_that_occurs_twice_is_refused_before_one_is_chosen(tmp_path):
    path = write(tmp_path, "id,prompt,response_a,response_b,prompt\n7,p,a,b,q\n")
    with pytest.raises(InputError, match=r"battles\.csv, line 1: more than one column 'prompt'"):
        read_table(path)


def test_a_long_column_has_one_type_from_beginning_to_end(tmp_path):
    # By default pandas decides on types anew after so many rows as make a million cells.
    n_rows, more = 20_000, ",0" * 64
    rows = "".join(f"{row},tie,{'x' if row == n_rows - 1 else row // 2}{more}\n" for row in range(n_rows))
    names = "".join(f",f{number}" for number in range(64))
    path = write(tmp_path, f"id,winner,group{names}\n{rows}", "y.csv")
    assert set(map(type, read_labels(path).groups)) == {str}


# --- separators and encodings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", HEADER.replace(",", ";") + "7;p;a;b\n", r"line 1: .* separated by semicolons, expected c.*sep=';'"),
        ("a.csv", HEADER.replace(",", "\t") + "7\tp\ta\tb\n", r"line 1: .* tabs, expected commas; name it \.tsv"),
        ("a.tsv", HEADER + "7,p,a,b\n", r"line 1: .* commas, expected tabs; name it \.csv"),
        (
            "a.csv", (HEADER + "7,p,a,b\n8,q,grün,d\n").encode("latin-1"),
            r"line 3, byte 7: 0xfc in '8,q,grün,d\\n' is no UTF-8; .*Latin-1.*cp1252",
        ),
        ("a.csv", (HEADER + '7,"p\n\n",a,b\n8,q,grün,d\n').encode("cp1252"), r"line 5, byte 7: 0xfc"),
        ("a.csv", (HEADER + "7,p,a,b\n").encode("utf-16"), r"line 1: the file is UTF-16, expected UTF-8; save"),
        ("a.csv", (HEADER + "7,p,a,b\n").encode("utf-16-le"), "the file is UTF-16"),
        ("a.tsv", (HEADER + "7,p,a,b\n").encode("utf-16-be"), "the file is UTF-16"),
        ("a.csv", gzip.compress(HEADER.encode(), mtime=0), r"packed by gzip, expected csv; let its name end in \.gz"),
        ("a.csv.gz", gzip.compress(gzip.compress(HEADER.encode(), mtime=0), mtime=0), "the file is packed by gzip"),
        ("a.csv", b"PK\x03\x04junk", "the file is a zip archive or a workbook, expected csv; unpack it"),
        ("a.jsonl", b"PAR1junk", r"the file is Parquet, expected jsonl; let its name end in \.parquet"),
        ("a.jsonl", "{}".encode("utf-16"), "the file is UTF-16"),
        ("a.csv", b"\n\n", "is empty"),
    ],
)  # fmt: skip
def test_another_separator_or_encoding_is_named_with_its_line_and_cure(name, content, words, tmp_path):
    path = write(tmp_path, content, name)
    with pytest.raises(InputError, match=words) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_a_byte_order_mark_of_utf_8_is_no_part_of_the_first_name(name, tmp_path):

    content = (HEADER + "7,grün,a,b\n").encode("utf-8-sig")
    if name.endswith(".tsv"):
        content = content.replace(b",", b"\t")
    path = write(tmp_path, gzip.compress(content) if name.endswith(".gz") else content, name)
    assert read_table(path).to_dict("list") == {
        "id": [7], "prompt": ["grün"], "response_a": ["a"], "response_b": ["b"]
    }  # fmt: skip
