"""The steps of cleaning, on tables of few rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.cleaning.hygiene import clean
from lmsys_ensemble.cleaning.settings import HygieneSettings
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import TWO_WAY
from tests.cleaning.test_hygiene import CONTRADICTING, EMPTY, LONG, TIE, A, B, changes, labels_of, make_table


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
