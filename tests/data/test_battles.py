import json
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import TEXT_COLUMNS

ANY_TEXT = st.lists(st.characters() | st.integers(0xD800, 0xDFFF).map(chr), max_size=12).map("".join)
"""All of Unicode, lone surrogates included."""

DEEP = "[" * (10 * sys.getrecursionlimit()) + "]" * (10 * sys.getrecursionlimit())

TURNS = st.lists(st.none() | ANY_TEXT, min_size=1, max_size=4)


def table_of(prompts, responses_a=None, responses_b=None, ids=None):
    """Return a table whose responses are like its prompts where none are given."""
    columns = (
        prompts,
        prompts if responses_a is None else responses_a,
        prompts if responses_b is None else responses_b,
    )
    frame = {name: pd.Series(list(column), dtype=object) for name, column in zip(TEXT_COLUMNS, columns, strict=True)}
    return pd.DataFrame({"id": range(len(prompts)) if ids is None else ids, **frame})


def without_surrogates(text):
    """Join surrogate pairs and replace lone surrogates, one character at a time: the slow, obvious way."""
    result, replaced, position = "", 0, 0
    while position < len(text):
        first, second = text[position], text[position + 1 : position + 2]
        position += 1
        if "\ud800" <= first <= "\udbff" and "\udc00" <= second <= "\udfff" and second:
            result += chr(0x10000 + ((ord(first) - 0xD800) << 10) + ord(second) - 0xDC00)
            position += 1
        elif "\ud800" <= first <= "\udfff":
            result += "\ufffd"
            replaced += 1
        else:
            result += first
    return result, replaced


# --- turns ----------------------------------------------------------------------------------------------------------


@given(st.lists(TURNS, min_size=1, max_size=4), st.booleans())
def test_json_lists_come_back_as_the_turns_they_were_made_of(rows, ascii_only):
    cells = [json.dumps(turns, ensure_ascii=ascii_only) for turns in rows]
    # json.loads joins an escaped pair; so does what replaces lone surrogates.
    expected = [[without_surrogates(turn or "") for turn in turns] for turns in rows]
    battles = parse_battles(table_of(cells))
    for column in (battles.prompts, battles.responses_a, battles.responses_b):
        assert column == [tuple(text for text, _ in turns) for turns in expected]
    assert battles.n_replaced_surrogates == 3 * sum(count for turns in expected for _, count in turns)


@given(st.lists(TURNS, min_size=1, max_size=4), st.sampled_from([list, tuple, lambda turns: np.array(turns, object)]))
def test_real_lists_give_the_same_turns_as_json_lists(rows, container):
    from_lists = parse_battles(table_of([container(turns) for turns in rows]))
    from_json = parse_battles(table_of([json.dumps(turns) for turns in rows]))
    assert from_lists.prompts == from_json.prompts
    assert from_lists.n_replaced_surrogates == from_json.n_replaced_surrogates


@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_plain_texts_are_one_turn_each_and_every_text_can_be_encoded(texts):
    battles = parse_battles(table_of(texts), text_format="plain")
    assert battles.prompts == [(without_surrogates(text)[0],) for text in texts]
    for (text,) in battles.prompts:
        text.encode("utf-8")


def test_a_lone_surrogate_becomes_the_replacement_character_and_is_counted():
    battles = parse_battles(table_of(["a\ud800b"], ["\ud83c\udf4d \udf4d"], ["\ufffd is not counted"]))
    assert battles[0].prompt == ("a\ufffdb",)
    assert battles[0].response_a == ("🍍 \ufffd",)
    assert battles.n_replaced_surrogates == 2


def test_the_word_null_is_text_and_a_null_turn_is_empty(battles_table):
    battle = parse_battles(battles_table)[3]
    assert (battle.prompt, battle.response_a, battle.response_b) == (
        ("Print null.", ""),
        ("null", "again"),
        ("", "null"),
    )


@pytest.mark.parametrize("text_format", ["auto", "json", "plain"])
def test_code_in_a_cell_is_never_executed(text_format, tmp_path):
    proof = tmp_path / "executed"
    code = f"[__import__('pathlib').Path({str(proof)!r}).touch()]"
    good = '["a text"]'
    if text_format == "plain":
        assert parse_battles(table_of([code]), "plain").prompts == [(code,)]
    else:  # among JSON lists it is a fault, alone it is a text
        with pytest.raises(InputError, match=r"row 1, column 'prompt': expected a JSON list"):
            parse_battles(table_of([good, code, good], [good] * 3, [good] * 3), text_format)
        assert parse_battles(table_of([code])).prompts == [(code,)]
    assert not proof.exists()


# --- the format of a column -----------------------------------------------------------------------------------------


@given(st.integers(0, 6), st.integers(0, 6))
def test_a_column_is_json_where_half_of_its_cells_are_and_plain_otherwise(n_lists, n_texts):
    cells = ['["a list"]'] * n_lists + ["a text"] * n_texts
    table = table_of(cells, ["plain"] * len(cells), ["plain"] * len(cells))
    if 0 < n_texts <= n_lists:
        with pytest.raises(InputError, match=f"{n_texts} of the table's cells"):
            parse_battles(table)
    else:
        expected = ("a list",) if n_lists and not n_texts else ('["a list"]',)
        assert parse_battles(table).prompts == [expected] * n_lists + [("a text",)] * n_texts


def test_each_column_is_decided_by_itself():
    battles = parse_battles(table_of(["plain"], ['["json"]'], [["list"]]))
    assert (battles[0].prompt, battles[0].response_a, battles[0].response_b) == (("plain",), ("json",), ("list",))


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", '["a", 1]', '{"a": 1}', '["a"', "[]extra", DEEP, "[" + "9" * 5000 + "]", '"a"'],
    ids=lambda text: text[:8],
)
def test_what_only_looks_like_a_list_of_turns_is_a_plain_text(text):
    assert parse_battles(table_of([text])).prompts == [(text,)]


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, float("nan"), 3, 2.5, True, b"bytes", pd.NA, {"a": 1}], ids=repr)
@pytest.mark.parametrize("good", ["a text", '["a list"]', ["a list"]], ids=["plain", "json", "list"])
@pytest.mark.parametrize("column", TEXT_COLUMNS)
def test_a_cell_that_is_no_text_is_named_by_row_and_column(wrong, good, column):
    table = table_of([good, good, good], ids=["first", "second", "third"])
    table.at[1, column] = wrong
    with pytest.raises(InputError, match=rf"row 'second', column '{column}': expected") as caught:
        parse_battles(table)
    assert type(wrong).__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([["a", 1]], r"turn 2 must be text or null, got 1 \(int\)"),
        ([["a", float("nan")]], r"turn 2 must be text or null, got nan"),
        ([[]], "an empty list has no turns"),
        (["[]"], "an empty list has no turns"),
    ],
)
def test_turns_that_are_no_text_are_refused(cells, words):
    with pytest.raises(InputError, match=words):
        parse_battles(table_of(cells))


def test_one_error_lists_the_first_ten_faults_and_counts_the_rest():
    with pytest.raises(InputError) as caught:
        parse_battles(table_of([None] * 5, [1] * 5, ["text"] * 5))
    assert "10 of the table's cells" in str(caught.value)
    assert str(caught.value).count("column ") == 10
    with pytest.raises(InputError, match="and 5 more") as caught:
        parse_battles(table_of([None] * 5, [1] * 5, [True] * 5))
    assert str(caught.value).count("column ") == 10


def test_a_fault_does_not_print_a_whole_cell():
    with pytest.raises(InputError) as caught:
        parse_battles(table_of(['["good"]', '["good"]', "x" * 100_000], ["a"] * 3, ["a"] * 3))
    assert len(str(caught.value)) < 500


def test_rows_with_unequal_numbers_of_turns_are_named():
    with pytest.raises(InputError, match="row 5: 2 turns in prompt, 1 in response_a and 1 in response_b"):
        parse_battles(table_of([["a", "b"]], [["a"]], [["a"]], ids=[5]))


# --- ids ------------------------------------------------------------------------------------------------------------


# --- battles as a sequence ------------------------------------------------------------------------------------------


def test_battles_are_a_sequence_that_keeps_ids_and_texts_together(battles_table):
    battles = parse_battles(battles_table)
    assert [battle.id for battle in battles] == battles_table["id"].tolist()
    taken = battles.take(np.array([4, 0]))
    assert list(taken) == [battles[4], battles[0]]
    assert list(battles[1:3]) == [battles[1], battles[2]]
    assert taken.ids.dtype == battles.ids.dtype


def test_a_swap_changes_the_places_of_the_responses_and_twice_is_as_before(battles_table):
    battles = parse_battles(battles_table)
    swapped = battles.swapped()
    for before, after in zip(battles, swapped, strict=True):
        assert (after.id, after.prompt) == (before.id, before.prompt)
        assert (after.response_a, after.response_b) == (before.response_b, before.response_a)
    assert list(swapped.swapped()) == list(battles)


@given(st.lists(st.tuples(*[st.lists(st.text(max_size=3), min_size=2, max_size=2)] * 3), min_size=1, max_size=6))
def test_rows_have_equal_hashes_where_their_texts_are_equal(rows):
    prompts, responses_a, responses_b = ([tuple(row[field]) for row in rows] for field in range(3))
    hashes = Battles(pd.RangeIndex(len(rows)), prompts, responses_a, responses_b).content_hashes()
    again = Battles(pd.RangeIndex(9, 9 + len(rows)), prompts, responses_a, responses_b).content_hashes()
    assert hashes == again
    assert len(set(hashes)) == len({str(row) for row in rows})


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_gives_the_battles_that_were_written(battles_table, suffix, tmp_path):
    path = tmp_path / f"battles{suffix}"
    write = battles_table.to_csv if suffix == ".csv" else battles_table.to_parquet
    write(path, index=False)
    read, written = parse_battles(read_table(path)), parse_battles(battles_table)
    assert list(read) == list(written)
    assert read.ids.dtype == written.ids.dtype


def test_lists_in_a_parquet_file_are_read_as_lists(tmp_path):
    path = tmp_path / "battles.parquet"
    table_of([["one", None], ['["x"]', "two"]]).to_parquet(path)
    assert parse_battles(read_table(path)).prompts == [("one", ""), ('["x"]', "two")]


# --- real data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n_rows", "most_turns"),
    [("gpt4_preferences", 10_007, 1), ("pandalm_human", 999, 1), ("hh_multi_turn", 2_312, 18)],
)
def test_the_preference_data_is_read_whole(data_folder, name, n_rows, most_turns):
    table = read_table(data_folder / f"{name}.parquet")
    battles = parse_battles(table)
    assert len(battles) == n_rows
    assert battles.ids.dtype == "int64"
    assert max(len(turns) for turns in battles.prompts) == most_turns
    assert parse_labels(table).sum(axis=1) == pytest.approx(np.ones(n_rows), abs=1e-12)
    for column, turns in zip(TEXT_COLUMNS, (battles.prompts, battles.responses_a, battles.responses_b), strict=True):
        assert [tuple(turn or "" for turn in json.loads(cell)) for cell in table[column]] == turns


@pytest.mark.parametrize("levels", [500, 100_000])
def test_deep_nesting_in_a_cell_is_named_by_row_and_column(levels, battles_table):
    deep, nested = "[" * levels + "]" * levels, []
    for _ in range(levels):
        nested = [nested]
    for cell in (deep, f'["text", {deep}]'):
        battles_table.loc[2, "response_b"] = cell
        with pytest.raises(InputError, match=r"row 53567, column 'response_b': expected a JSON list"):
            parse_battles(battles_table)
    lists = battles_table.assign(prompt=[["a"], ["b", "c"], ["d"], nested, ["e"]])
    with pytest.raises(InputError, match=r"row 65089, column 'prompt': turn 1 must be text or null, got \[\[\["):
        parse_battles(lists)
