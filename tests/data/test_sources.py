"""Rows in each published format, written by hand; nothing is copied from the data sets themselves."""

import json

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.sources import SOURCES, load_source
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY


def messages(*contents):
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 9, contents, strict=False)]


def transcript(*contents):
    return "".join(
        f"\n\n{name}: {text}" for name, text in zip(("Human", "Assistant") * 9, contents, strict=False)
    )  # fmt: skip


def turns(table):
    return [(battle.prompt, battle.response_a, battle.response_b) for battle in parse_battles(table)]


def winners(table):
    return [THREE_WAY.classes[code] for code in parse_labels(table).argmax(axis=1)]


LMSYS = (
    "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"
    '4294967299,m1,m2,"[""Hi"",""And?""]","[""Hello"",null]","[""Hey"",""Well""]",1,0,0\n'
    '65089,m2,m3,"[""Sum \\ud83c\\udf4d""]","[""1""]","[""2""]",0,0,1\n'
)


@pytest.mark.parametrize("name", ["lmsys", "lmsys-55k"])
def test_the_competitions_csv(tmp_path, name):
    (tmp_path / "train.csv").write_text(LMSYS)
    loaded = load_source(name, tmp_path / "train.csv")
    assert loaded.skipped == {}
    assert loaded.table["id"].tolist() == [4_294_967_299, 65_089]
    assert turns(loaded.table) == [
        (("Hi", "And?"), ("Hello", ""), ("Hey", "Well")),
        (("Sum \U0001f34d",), ("1",), ("2",)),
    ]
    assert winners(loaded.table) == ["model_a", "tie"]
    assert loaded.table["source"].tolist() == [name, name]
    assert loaded.table["model_b"].tolist() == ["m2", "m3"]


def arena_table():
    return pd.DataFrame(
        {
            "question_id": ["58210e39", "2eb92833", "a0"],
            "model_a": ["m1", "m2", "m1"],
            "model_b": ["m2", "m3", "m3"],
            "winner": ["model_b", "tie (bothbad)", "tie"],
            "judge": ["arena_user_1"] * 3,
            "conversation_a": [messages("Hi", "Hello", "Why?", "So"), messages("1+1?", "3"), messages("A", "B", "C")],
            "conversation_b": [messages("Hi", "Hey", "Why?", ""), messages("1+1?", "4"), messages("A", "B", "C")],
            "turn": [2, 1, 1],
            "language": ["English", "unknown", "German"],
        }
    )


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_arena_conversations(tmp_path, suffix):
    path = tmp_path / f"arena.{suffix}"
    if suffix == "parquet":
        arena_table().to_parquet(path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in arena_table().to_dict(orient="records")))
    loaded = load_source("lmsys-33k", path)
    assert turns(loaded.table) == [(("Hi", "Why?"), ("Hello", "So"), ("Hey", "")), (("1+1?",), ("3",), ("4",))]
    assert winners(loaded.table) == ["model_b", "tie"]
    assert loaded.table["language"].tolist() == ["English", "unknown"]
    assert loaded.table["id"].tolist() == ["58210e39", "2eb92833"]
    assert loaded.skipped == {"a0": "user and assistant do not take turns, the user first and the assistant last"}


def test_conversations_that_a_csv_holds_as_json(tmp_path):
    table = arena_table()[:2]
    for name in ("conversation_a", "conversation_b"):
        table[name] = [json.dumps(cell) for cell in table[name]]
    table.to_csv(tmp_path / "arena.csv", index=False)
    assert len(load_source("lmsys-33k", tmp_path / "arena.csv").table) == 2
    table["conversation_a"] = "{'role': 'user'}"
    with pytest.raises(InputError, match=r"no row can be used; row '58210e39': .*no JSON"):
        load_source("lmsys-33k", table)


def test_wsdm_has_two_classes_and_its_texts_are_taken_as_they_are(tmp_path):
    table = pd.DataFrame(
        {
            "id": ["0a1b", "0c2d", "0e3f"],
            "prompt": ['["no list"]', '["nor this"]', '["nor this"]'],
            "response_a": ["x", "null", ""],
            "response_b": ["y", "z", "w"],
            "winner": ["model_a", "model_b", "model_b"],
            "language": ["English", "Vietnamese", "Russian"],
        }
    )
    table.to_parquet(tmp_path / "train.parquet")
    loaded = load_source("wsdm", tmp_path / "train.parquet").table
    assert turns(loaded) == [
        (('["no list"]',), ("x",), ("y",)),
        (('["nor this"]',), ("null",), ("z",)),
        (('["nor this"]',), ("",), ("w",)),
    ]
    assert winners(loaded) == ["model_a", "model_b", "model_b"]
    assert parse_labels(loaded, TWO_WAY).argmax(axis=1).tolist() == [0, 1, 1]
    with pytest.raises(InputError, match=r"source 'wsdm'.*'tie'"):
        load_source("wsdm", table.assign(winner="tie"))


def ultrafeedback_table(n_rows=40):
    return pd.DataFrame(
        {
            "prompt": [f"question {row}" for row in range(n_rows)],
            "chosen": [messages(f"question {row}", f"good {row}") for row in range(n_rows)],
            "rejected": [messages(f"question {row}", f"poor {row}") for row in range(n_rows)],
            "score_chosen": [8.0, 5.0, 3.0] + [np.nan] * (n_rows - 3),
            "score_rejected": [2.0, 5.0, 4.0] + [1.0] * (n_rows - 3),
        }
    )


def test_ultrafeedback_and_the_meaning_of_its_scores(tmp_path):
    ultrafeedback_table().to_parquet(tmp_path / "train.parquet")
    loaded = load_source("ultrafeedback", tmp_path / "train.parquet")
    assert loaded.skipped == {2: "the rejected response has the higher score"}
    assert loaded.table["id"].tolist() == [0, 1, *range(3, 40)]
    found = winners(loaded.table)
    assert found[1] == "tie"
    for row, (texts, winner) in enumerate(zip(turns(loaded.table), found, strict=True)):
        if row != 1:
            assert texts[1 if winner == "model_a" else 2][0].startswith("good")


def test_the_order_of_chosen_and_rejected_tells_nothing_and_does_not_change():
    table = ultrafeedback_table(200)[3:]
    once, again = (load_source("ultrafeedback", table).table for _ in range(2))
    pd.testing.assert_frame_equal(once, again)
    assert 60 < winners(once).count("model_a") < 137
    exchanged = load_source("ultrafeedback", table.rename(columns={"chosen": "rejected", "rejected": "chosen"})).table
    assert turns(exchanged) == turns(once)


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("Hi", "Hello", "Go away"),
        ("Hi", messages("Hi", "Hello"), messages("Hi", "Go away")),
        (messages("Hi"), messages("", "Hello")[1:], messages("", "Go away")[1:]),
        (messages("Hi"), messages("Hi", "Hello"), messages("Hi", "Go away")),
    ],
    ids=["texts", "whole conversations", "answers alone", "prompt twice"],
)
def test_ways_to_write_a_chosen_response(prompt, chosen, rejected):
    table = pd.DataFrame({"prompt": [prompt], "chosen": [chosen], "rejected": [rejected]})
    (row,) = turns(load_source("ultrafeedback", table).table)
    assert row[0] == ("Hi",)
    assert set(row[1:]) == {("Hello",), ("Go away",)}


def test_a_row_that_mixes_texts_and_messages_is_skipped_with_the_reason():
    table = pd.DataFrame({"prompt": ["Hi", "Hi"], "chosen": ["Hello", None], "rejected": ["No", "No"]})
    skipped = load_source("ultrafeedback", table).skipped
    assert list(skipped) == [1]
    assert skipped[1].startswith("expected texts or lists of messages, got str and ")


def test_hh_transcripts(tmp_path):
    rows = [
        {
            "chosen": transcript("Hi\n\nthere", "Hello", "Why?", "Because"),
            "rejected": transcript("Hi\n\nthere", "Hello", "Why?", ""),
        },
        {"chosen": transcript("Hi", "Hello"), "rejected": transcript("Ho", "Hello")},
        {"chosen": transcript("Hi", "Hello"), "rejected": "Human says Hi"},
        {"chosen": transcript("Hi", "Hello", "Bye"), "rejected": transcript("Hi", "Hello", "Bye")},
    ]
    (tmp_path / "hh.jsonl").write_text("\n".join(map(json.dumps, rows)))
    loaded = load_source("hh-rlhf", tmp_path / "hh.jsonl")
    ((prompt, a, b),) = turns(loaded.table)
    assert prompt == ("Hi\n\nthere", "Why?")
    assert {a, b} == {("Hello", "Because"), ("Hello", "")}
    assert (a if winners(loaded.table) == ["model_a"] else b) == ("Hello", "Because")
    assert loaded.skipped == {
        1: "the user's turns differ between the two conversations",
        2: "the transcript does not begin with 'Human: '",
        3: "user and assistant do not take turns, the user first and the assistant last",
    }


def test_missing_columns_are_named_with_what_was_found_and_the_source_that_fits(tmp_path):
    (tmp_path / "train.csv").write_text(LMSYS)
    with pytest.raises(InputError) as caught:
        load_source("lmsys-33k", tmp_path / "train.csv")
    for words in ("train.csv is not as the source 'lmsys-33k'", "'conversation_a'", "winner_tie", "those of 'lmsys'"):
        assert words in str(caught.value)
    with pytest.raises(InputError, match=r"columns are missing: .*; the table has a$"):
        load_source("wsdm", pd.DataFrame({"a": [1]}))


def test_an_unknown_source_gets_a_suggestion_and_every_source_is_described():
    with pytest.raises(InputError, match=r"no source 'lmsys_33k' \(did you mean 'lmsys-33k'\?\)"):
        load_source("lmsys_33k", "x.csv")
    assert all(source.description and source.columns for source in SOURCES.values())


def test_labels_that_are_none_name_the_file_and_the_source(tmp_path):
    (tmp_path / "train.csv").write_text(LMSYS.replace(",1,0,0", ",1,1,0"))
    with pytest.raises(InputError, match=r"train\.csv \(source 'lmsys'\): labels .* does not sum to 1"):
        load_source("lmsys", tmp_path / "train.csv")
