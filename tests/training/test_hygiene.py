import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.data.battles import parse_battles, parse_labels
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.folds import make_folds
from lmsys_ensemble.files import parse_settings
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.training.cleaning_report import REASONS
from lmsys_ensemble.training.dataset import read_labelled
from lmsys_ensemble.training.hygiene import clean, clean_labelled
from lmsys_ensemble.training.hygiene_settings import HygieneSettings
from lmsys_ensemble.training.normalization import normalise

A, B, TIE = np.eye(3).tolist()


def make_table(*rows, **columns):
    """Return labelled battles of one turn out of (prompt, response A, response B, winner); None is a null turn."""
    texts = {
        name: [json.dumps([row[field]]) for row in rows]
        for field, name in enumerate(("prompt", "response_a", "response_b"))
    }
    winners = ["model_a" if row[3] == "A" else "model_b" if row[3] == "B" else "tie" for row in rows]
    return pd.DataFrame({"id": np.arange(len(rows)) + 100, **texts, "winner": winners, **columns})


def labels_of(cleaned):
    return dict(zip(cleaned["id"], cleaned[list(THREE_WAY.columns)].to_numpy().tolist(), strict=True))


def changes(report):
    return [(change.id, change.action, change.reason, change.other_id) for change in report.changes]


EMPTY = (("p", None, " \n", "A"), ("p", "x", None, "B"), ("q", "x", "y", "B"))


def test_rows_with_two_empty_responses_are_dropped_relabelled_or_kept():
    table = make_table(*EMPTY)
    cleaned, report = clean(table)
    assert cleaned["id"].tolist() == [101, 102]
    assert changes(report) == [(100, "dropped", "empty", None), (101, "kept", "one_empty", None)]
    cleaned, report = clean(table, HygieneSettings(empty="tie"))
    assert labels_of(cleaned)[100] == TIE
    assert report.changes[0].before == A
    assert report.changes[0].after == TIE
    cleaned, report = clean(table, HygieneSettings(empty="keep"))
    assert labels_of(cleaned)[100] == A
    assert changes(report)[0] == (100, "kept", "empty", None)


def test_a_response_that_reads_null_is_a_response():
    _, report = clean(make_table(("p", "null", "", "A"), ("q", "NA", "x", "A")))
    assert report.ids("dropped") == []


def test_identical_responses_become_ties_or_are_dropped():
    table = make_table(("p", "same ", "same", "A"), ("q", "x", "X", "A"), ("r", "tied", "tied", "tie"))
    cleaned, report = clean(table)
    assert labels_of(cleaned) == {100: TIE, 101: A, 102: TIE}
    assert changes(report) == [(100, "relabelled", "identical", None)]
    cleaned, report = clean(table, HygieneSettings(identical="drop"))
    assert cleaned["id"].tolist() == [101]
    assert report.ids("dropped", "identical") == [100, 102]


def test_without_a_class_for_ties_a_tie_is_one_half_each():
    cleaned, _ = clean(make_table(("p", "same", "same", "A"), ("q", "x", "y", "B")), task=TWO_WAY)
    np.testing.assert_array_equal(parse_labels(cleaned, TWO_WAY), [[0.5, 0.5], [0, 1]])


def test_copies_are_dropped_in_both_orders_with_labels_put_right():
    table = make_table(
        ("Hi?", "yes", "no", "A"),
        ("hi?", "Yes", "no ", "A"),
        ("Hi?", "no", "yes", "B"),
        ("Hi?", "no", "maybe", "A"),
        ("Ho?", "yes", "no", "B"),
    )
    cleaned, report = clean(table)
    assert cleaned["id"].tolist() == [100, 103, 104]
    assert changes(report) == [
        (101, "dropped", "duplicate", 100),
        (102, "dropped", "swapped_duplicate", 100),
        (104, "kept", "shared_responses", 100),
    ]
    assert report.contradictions == ()
    cleaned, report = clean(table, HygieneSettings(duplicates="responses"))
    assert cleaned["id"].tolist() == [100, 103]
    cleaned, report = clean(table, HygieneSettings(duplicates="keep"))
    assert len(cleaned) == 5
    assert report.ids("kept", "swapped_duplicate") == [102]


CONTRADICTING = (("p", "x", "y", "A"), ("p", "y", "x", "A"), ("p", "x", "y", "A"), ("q", "x", "z", "B"))


def test_copies_that_contradict_each_other_are_reported_in_one_order():
    cleaned, report = clean(make_table(*CONTRADICTING))
    (found,) = report.contradictions
    assert found.ids == [100, 101, 102]
    assert found.labels == [A, B, A]
    np.testing.assert_allclose(labels_of(cleaned)[100], [2 / 3, 1 / 3, 0])
    assert report.ids("relabelled", "contradiction") == [100]


def test_contradictions_may_be_settled_by_the_first_copy_or_dropped():
    cleaned, report = clean(make_table(*CONTRADICTING), HygieneSettings(contradictions="first"))
    assert labels_of(cleaned) == {100: A, 103: B}
    assert len(report.contradictions) == 1
    cleaned, report = clean(make_table(*CONTRADICTING), HygieneSettings(contradictions="drop"))
    assert cleaned["id"].tolist() == [103]
    assert report.ids("dropped", "contradiction") == [100, 101, 102]


def test_rows_of_the_evaluation_set_are_removed_in_either_order():
    table = make_table(
        ("What  is it?", "x", "y", "A"), ("what is it?", "Y", "X", "B"), ("What is it?", "x", "z", "A"),
        ("else", "x", "y", "A"),
    )  # fmt: skip
    held = make_table(("WHAT is it?", "y", "x", "A")).drop(columns="winner").assign(id="e1")
    cleaned, report = clean(table, evaluation=held)
    assert cleaned["id"].tolist() == [102, 103]
    assert changes(report)[:3] == [
        (100, "dropped", "overlap", "e1"),
        (101, "dropped", "overlap", "e1"),
        (102, "kept", "overlapping_prompt", "e1"),
    ]
    cleaned, report = clean(table, HygieneSettings(overlap="prompt"), held)
    assert cleaned["id"].tolist() == [103]
    cleaned, report = clean(table, HygieneSettings(overlap="keep", duplicates="keep"), held)
    assert len(cleaned) == 4
    assert report.ids("kept", "overlap") == [100, 101]


LONG = "please write a short story about a cat that learns how to play chess with the old man next door"


def test_a_prompt_like_one_of_the_evaluation_set_is_found_by_its_group():
    table = make_table((LONG, "x", "y", "A"), ("other", "x", "y", "A"), group=["g", "h"])
    held = make_table((LONG.replace("cat", "dog"), "v", "w", "A"))
    cleaned, _ = clean(table, HygieneSettings(overlap="prompt"), held)
    assert cleaned["id"].tolist() == [101]
    cleaned, _ = clean(table, HygieneSettings(overlap="prompt", similar_prompts=None), held)
    assert len(cleaned) == 2
    table.loc[1, "group"] = "g"  # of the same group as a prompt that is like one of the evaluation set
    with pytest.raises(InputError, match="none of 2 rows"):
        clean(table, HygieneSettings(overlap="prompt"), held)


def test_groups_join_equal_and_similar_prompts_and_groups_of_the_input():
    rows = (
        (LONG, "1", "2", "A"),
        (LONG.upper(), "3", "4", "A"),
        (LONG.replace("cat", "dog"), "5", "6", "A"),
        ("q", "7", "8", "B"),
    )
    cleaned, report = clean(make_table(*rows))
    groups = cleaned["group"].tolist()
    assert groups[0] == groups[1] == groups[2] != groups[3]
    assert groups[0].startswith("prompt-")
    assert report.groups == {"groups": 2, "prompts": 3, "largest": 3, "joined": [[100, 101, 102]]}
    again, _ = clean(make_table(*rows).iloc[::-1])
    assert again["group"].tolist() == groups[::-1]  # names do not depend on the order of rows
    cleaned, _ = clean(make_table(*rows, group=["b", "a", None, "b"]))
    assert cleaned["group"].tolist() == ["a"] * 4
    cleaned, _ = clean(make_table(*rows), HygieneSettings(similar_prompts=None))
    assert cleaned["group"].nunique() == 3


def test_no_normalised_prompt_straddles_folds():
    generator = np.random.default_rng(0)
    prompts = [f"{LONG} number {number}" if number % 3 else f"q {number}" for number in range(60)]
    shapes = (str, str.upper, str.title, "  {}\n".format, "{}?".format)
    rows = []
    for row in range(400):
        prompt = shapes[row % 5](prompts[int(generator.integers(60))])
        rows.append((prompt, f"a {row}", f"b {row}", generator.choice(["A", "B", "tie"])))
    cleaned, _ = clean(make_table(*rows), HygieneSettings(similar_prompts=0.95))
    folds = make_folds(cleaned["group"], 5, seed=1, labels=parse_labels(cleaned))
    of_prompt = pd.Series(folds).groupby([normalise(battle.prompt) for battle in parse_battles(cleaned)]).nunique()
    assert (of_prompt == 1).all()
    assert len(of_prompt) > 60  # "q 3" and "q 3?" are two normalised prompts, but one group
    assert cleaned["group"].nunique() <= 60
    assert set(folds) == set(range(5))


def test_label_balance_is_reported_by_source_and_language():
    table = make_table(
        ("Привет", "x", "y", "A"), ("Hello", "x", "y", "B"), ("Hello", "x", "z", "tie"), ("Hello", "", "", "tie"),
        source=["one", "two", None, "two"],
    )  # fmt: skip
    _, report = clean(table)
    assert report.balance["before"]["rows"] == 4
    assert report.balance["after"] == {
        "rows": 3, "shares": {"model_a": 0.3333, "model_b": 0.3333, "tie": 0.3333},
    }  # fmt: skip
    assert {source: values["rows"] for source, values in report.balance["source"].items()} == {
        "one": 1, "two": 1, "unknown": 1,
    }  # fmt: skip
    assert report.balance["language"]["cyrillic"]["shares"]["model_a"] == 1
    _, report = clean(table.assign(language=["Russian", "English", "English", ""]))
    assert set(report.balance["language"]) == {"Russian", "English"}
    assert report.language_from == "the column language"


def test_unlabelled_battles_are_cleaned_of_what_needs_no_label():
    table = make_table(("p", "x", "x", "A"), ("p", "x", "x", "B"), ("q", "", "", "A"), ("r", "1", "2", "A"))
    cleaned, report = clean(table.drop(columns="winner"))
    assert list(cleaned) == ["id", "prompt", "response_a", "response_b", "group"]
    assert cleaned["id"].tolist() == [100, 103]
    assert report.balance is None
    assert "no labels" in report.to_text()
    with pytest.raises(InputError, match="no labels found"):
        clean(table.drop(columns="winner").assign(winner_model_a=1.0))


def test_all_columns_stay_and_the_input_is_not_changed():
    table = make_table(*CONTRADICTING, model_a="m", score=[1.5, 2, 3, 4])
    before = table.copy()
    cleaned, _ = clean(table)
    pd.testing.assert_frame_equal(table, before)
    assert cleaned["score"].tolist() == [1.5, 4]
    assert "winner" not in cleaned
    np.testing.assert_allclose(parse_labels(cleaned).sum(axis=1), 1)


def test_the_report_names_every_row_as_text_and_as_json():
    rows = [("p", "x", "y", "A")] * 14 + [("q", "same", "same", "B")]
    _, report = clean(make_table(*rows))
    values = json.loads(json.dumps(report.to_dict()))
    assert values["rows_before"] == 15
    assert values["rows_after"] == 2
    assert values["counts"]["dropped"] == {"duplicate": 13}
    dropped = [change["id"] for change in values["changes"] if change["action"] == "dropped"]
    assert dropped == list(range(101, 114))
    text = report.to_text()
    assert "15 rows, 13 dropped, 2 left" in text
    assert "101 (as 100), 102 (as 100)" in text
    assert ", …" in text
    assert REASONS["identical"] in text


def test_nothing_left_is_an_error_that_says_why():
    table = make_table(("p", "x", "y", "A"), ("q", None, None, "B"))
    with pytest.raises(InputError, match=r"none of 2 rows \(1: both responses are empty; 1: prompt and responses are"):
        clean(table, evaluation=table)
    with pytest.raises(InputError, match="the evaluation set: columns are missing"):
        clean(table, evaluation=table.drop(columns="prompt"))


def test_settings_that_are_none_get_a_suggestion():
    with pytest.raises(ConfigError, match=r"unknown key 'duplicate' \(did you mean 'duplicates'\?\)"):
        parse_settings(HygieneSettings, {"duplicate": "keep"}, "recipe")
    with pytest.raises(ConfigError, match="similar_prompts"):
        parse_settings(HygieneSettings, {"similar_prompts": 0.1}, "recipe")


def test_labelled_battles_are_cleaned_like_tables(tmp_path):
    table = make_table(*CONTRADICTING, *EMPTY, source="one")
    table["id"] = range(len(table))
    table.to_parquet(tmp_path / "one.parquet")
    cleaned, report = clean(table)
    data, same = clean_labelled(read_labelled([tmp_path / "one.parquet"], THREE_WAY), HygieneSettings())
    assert same.changes == report.changes
    assert data.battles.ids.tolist() == cleaned["id"].tolist()
    np.testing.assert_array_equal(data.labels, parse_labels(cleaned))
    assert len(set(data.groups)) == cleaned["group"].nunique() == 2
    assert list(data.sources) == ["one"] * len(data)


short = st.sampled_from(["", " ", "x", "X", "y", "z"])


@given(
    st.lists(
        st.tuples(st.sampled_from("pPq"), short, short, st.sampled_from(["A", "B", "tie"])), min_size=1, max_size=30
    ),
    st.builds(
        HygieneSettings,
        empty=st.sampled_from(["drop", "tie", "keep"]),
        identical=st.sampled_from(["drop", "tie", "keep"]),
        duplicates=st.sampled_from(["battle", "responses", "keep"]),
        contradictions=st.sampled_from(["average", "first", "drop"]),
    ),
)
def test_every_row_is_either_left_or_reported_as_dropped_once(rows, settings):
    table = make_table(*rows)
    table.loc[len(table)] = [999, '["kept"]', '["a"]', '["b"]', "model_a"]  # so that there is something left
    cleaned, report = clean(table, settings)
    dropped = report.ids("dropped")
    assert len(set(dropped)) == len(dropped)
    assert sorted([*dropped, *cleaned["id"]]) == table["id"].tolist()
    assert cleaned["id"].is_monotonic_increasing
    was = dict(zip(table["id"], parse_labels(table).tolist(), strict=True))
    relabelled = set(report.ids("relabelled"))
    assert all(label == was[row] for row, label in labels_of(cleaned).items() if row not in relabelled)
    if settings.duplicates != "keep" and settings.empty != "keep" and settings.identical != "keep":
        again, nothing = clean(cleaned, settings)
        assert again["id"].tolist() == cleaned["id"].tolist()
        assert {change.action for change in nothing.changes} <= {"kept"}


# ------------------------------------------------------------------------------------------------- real preferences


def test_pandalm_shares_its_prompts_and_one_battle_with_gpt4_preferences(data_folder):
    pandalm, gpt4 = (read_table(data_folder / f"{name}.parquet") for name in ("pandalm_human", "gpt4_preferences"))
    _, report = clean(pandalm, evaluation=gpt4)
    assert report.n_before == 999
    assert report.counts()["dropped"] == {"overlap": 1, "duplicate": 92, "swapped_duplicate": 46}
    assert [(change.id, change.other_id) for change in report.changes if change.reason == "overlap"] == [
        (20_000_292, 10_000_657)  # with its responses exchanged, and another line break in the prompt
    ]
    assert len(report.contradictions) == 1
    assert len(report.ids("kept", "overlapping_prompt")) == 997
    assert not set(pandalm["group"]) & set(gpt4["group"])  # the column group alone does not tell


def test_folds_of_gpt4_preferences_divide_no_prompt(data_folder):
    table = read_table(data_folder / "gpt4_preferences.parquet")[:3000]
    cleaned, _ = clean(table)
    folds = make_folds(cleaned["group"], 5, labels=parse_labels(cleaned))
    prompts = [normalise(battle.prompt) for battle in parse_battles(cleaned)]
    assert (pd.Series(folds).groupby(prompts).nunique() == 1).all()
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() < 0.02 * len(folds)
