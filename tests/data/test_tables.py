"""Tables read from files: texts stay texts, and ids and columns are checked."""

import pandas as pd
import pytest

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.tables import parse_ids, read_table, require_columns
from lmsys_ensemble.errors import InputError
from tests.data.test_battles import table_of


def test_missing_columns_get_a_suggestion(battles_table):
    with pytest.raises(InputError, match=r"missing: 'response_a'; the table has answer_a, response_b"):
        require_columns(pd.DataFrame(columns=["answer_a", "response_b"]), ["response_a", "response_b"])
    with pytest.raises(InputError, match=r"'prompt' \(did you mean 'prompts'\?\)"):
        parse_battles(battles_table.rename(columns={"prompt": "prompts"}))


def test_a_column_that_is_there_twice_is_refused(battles_table):
    with pytest.raises(InputError, match="more than one column 'prompt'"):
        parse_battles(pd.concat([battles_table, battles_table[["prompt"]]], axis=1))


@pytest.mark.parametrize(
    "ids",
    [
        pd.Series([2**31 + 1, 2**40, -1]),
        pd.Series([1, 2, 3], dtype="int16"),
        pd.Series([2**64 - 1, 0, 1], dtype="uint64"),
        pd.Series(["007", "7", " 7"]),
        pd.Series(["a", "b", "c"], dtype=object),
    ],
    ids=lambda ids: str(ids.dtype),
)
def test_ids_are_kept_as_they_came(ids):
    kept = parse_battles(table_of(["text"] * 3, ids=ids)).ids
    assert kept.dtype == ids.dtype
    assert kept.tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 2, 1], "1 ids occur more than once .*: 1$"),
        (["b", "b", "b"], "'b'"),
        ([1.0, 2.0, 3.0], "position 0: 1.0"),
        ([1, None, 3], "position 1: (None|nan)"),
        (["a", None, "c"], "position 1: (None|nan)"),
        (["a", "", "c"], "position 1: ''"),
        ([True, False, 2], "position 0: True"),
        ([1, "1", 2], "all integers or all strings"),
    ],
)
def test_ids_that_do_not_identify_a_row_are_refused(ids, words):
    with pytest.raises(InputError, match=words):
        parse_ids(pd.Series(ids, dtype=object))


@pytest.mark.parametrize("text", ["null", "NA", "nan", "", "None", "3.0", "007", "true", "a\n\tb", 'say "hi", twice'])
def test_a_text_in_a_csv_stays_that_text(text, tmp_path):
    path = tmp_path / "battles.csv"
    table_of([text, "other"]).to_csv(path, index=False)
    assert parse_battles(read_table(path)).prompts[0] == (text,)


@pytest.mark.parametrize(
    ("ids", "dtype"),
    [
        (["1", "4294967299"], "int64"),
        (["007", "008"], "str"),
        (["1", "x"], "str"),
        (["1.0", "2.0"], "str"),
        (["99999999999999999999999", "1"], "str"),
    ],
)
def test_ids_of_a_csv_become_numbers_only_where_nothing_is_lost(ids, dtype, tmp_path):
    path = tmp_path / "battles.csv"
    path.write_text("id,prompt,response_a,response_b\n" + "".join(f"{row_id},p,a,b\n" for row_id in ids))
    read = parse_battles(read_table(path)).ids
    assert [str(row_id) for row_id in read] == ids
    assert (read.dtype == "int64") == (dtype == "int64")


@pytest.mark.parametrize("row_id", ["a\nb", "a\r=1+1", "\x1b[31mred", "nul\x00", "next\x85", "line\u2028", "\x7f"])
def test_ids_with_control_characters_or_line_breaks_are_refused(row_id):
    with pytest.raises(InputError, match=r"1 do: position 1: ") as caught:
        parse_ids(pd.Series(["fine", row_id]))
    assert str(caught.value).isprintable(), "the error itself shows none"
    assert parse_ids(pd.Series(["grün", "日本 7", "👩‍💻", "a b"])).tolist() == ["grün", "日本 7", "👩‍💻", "a b"]


def test_an_id_that_a_csv_leaves_out_is_missing(tmp_path):
    path = tmp_path / "battles.csv"
    path.write_text("id,prompt,response_a,response_b\n,p,a,b\n5,p,a,b\n")
    with pytest.raises(InputError, match="position 0"):
        parse_battles(read_table(path))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.csv", None, "there is no file"),
        ("battles.txt", b"id\n1\n", r"must end in \.csv, \.tsv, .*, got '\.txt'"),
        ("battles", b"id\n1\n", "no suffix"),
        ("battles.parquet", b"not parquet", "cannot be read as parquet"),
        ("battles.csv", b"", "is empty, expected a header and rows"),
        ("battles.csv", b"id,prompt\n1,\xff\xfe\n", "line 2, byte 3: 0xff"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name, content, words, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
