"""JSON lines: texts, numbers and lists stay what they are."""

import json

import pandas as pd
import pytest

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.predictions import read_labels
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.errors import InputError


def write(folder, *rows):
    path = folder / "t.jsonl"
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def row(row_id, prompt="p", response_a="a", response_b="b"):
    return {"id": row_id, "prompt": prompt, "response_a": response_a, "response_b": response_b}


@pytest.mark.parametrize(
    ("ids", "dtype"), [([2**53 + 1, 2**63 - 1], "int64"), (["007", "8"], "str"), (["1", "2"], "str")]
)
def test_ids_are_integers_or_texts_as_they_stand(ids, dtype, tmp_path):
    read = parse_battles(read_table(write(tmp_path, *map(row, ids)))).ids
    assert read.tolist() == ids
    assert read.dtype == dtype


def test_real_lists_are_turns_and_a_null_turn_is_empty(tmp_path):
    battles = parse_battles(read_table(write(tmp_path, row(1, ["x", None], ["a", "b"], ["[1]", ""]))))
    assert battles[0].prompt == ("x", "")
    assert battles[0].response_b == ("[1]", "")


@pytest.mark.parametrize("text", ["null", "NA", "", "3.0", "2024-01-01", "line\u2028sep", "a\r\nb", "\ud83c\udf4d"])
def test_a_text_stays_that_text(text, tmp_path):
    battles = parse_battles(read_table(write(tmp_path, row(1, text), row(2))))
    assert battles[0].prompt == (text.encode("utf-16", "surrogatepass").decode("utf-16"),)


def test_a_lone_surrogate_is_replaced_in_texts_and_refused_in_ids(tmp_path):
    battles = parse_battles(read_table(write(tmp_path, row("a", "x\ud800"), row("b"))))
    assert battles[0].prompt == ("x\ufffd",)
    with pytest.raises(InputError, match=r"t\.jsonl, line 2: the id '.*' holds half a surrogate pair"):
        read_table(write(tmp_path, row("a"), row("b\udc00")))


def test_what_a_line_lacks_is_named_by_row_and_column(tmp_path):
    lacking = row(8)
    del lacking["response_b"]
    with pytest.raises(InputError, match=r"row 8, column 'response_b': expected text, got None"):
        parse_battles(read_table(write(tmp_path, row(7), lacking)))
    del lacking["id"]
    with pytest.raises(InputError, match="1 are not: position 1: None"):
        parse_battles(read_table(write(tmp_path, row(7), lacking)))


def test_labels_may_be_names_or_numbers(tmp_path):
    assert read_labels(write(tmp_path, {"id": 1, "winner": "tie"})).labels.tolist() == [[0, 0, 1]]
    one_hot = {"id": 1, "winner_model_a": 0, "winner_model_b": 0.25, "winner_tie": 0.75}
    assert read_labels(write(tmp_path, one_hot)).labels.tolist() == [[0, 0.25, 0.75]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", r"line 3 is no JSON: .*expected one object per line"),
        (b"[1]", "line 3 holds list, expected one JSON object"),
        (b"[" * 100_000, "line 3 is no JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "line 3 is no JSON"),
        (b'{"id": "gr\xfcn"}', "line 3: .*utf-8.*save the file as UTF-8"),
    ],
    ids=["cut", "list", "deep", "long number", "latin-1"],
)
def test_a_line_that_is_no_object_is_named(line, words, tmp_path):
    with pytest.raises(InputError, match=words):
        read_table(write(tmp_path, row(1), b"", line))


def test_a_byte_order_mark_is_skipped_and_an_empty_file_refused(tmp_path):
    assert read_table(write(tmp_path, b"\xef\xbb\xbf" + json.dumps(row(1)).encode()))["id"].tolist() == [1]
    with pytest.raises(InputError, match="is empty"):
        read_table(write(tmp_path, b"", b" "))


def test_columns_come_in_the_order_in_which_they_appear(tmp_path):
    table = read_table(write(tmp_path, {"id": 1, "b": 1}, {"id": 2, "a": 2.5, "b": None}))
    assert table.columns.tolist() == ["id", "b", "a"]
    assert pd.isna(table.loc[1, "b"])
