import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.merging import merge_sources
from lmsys_ensemble.errors import InputError


@pytest.fixture
def plain_table() -> pd.DataFrame:
    """Three battles of plain text, one of which looks like a list; two classes."""
    return pd.DataFrame(
        {
            "id": ["x", "y", "z"],
            "prompt": ['["a list?"]', "no list", "nor this"],
            "response_a": ["1", "2", "3"],
            "response_b": ["4", "5", "6"],
            "winner_model_a": [1, 0, 0],
            "winner_model_b": [0, 1, 1],
            "model_a": ["m", "n", "o"],
        }
    )


def test_tables_of_other_formats_keep_their_texts_and_say_where_they_came_from(labelled_table, plain_table):
    merged = merge_sources({"arena": labelled_table, "mine": plain_table})
    assert merged["source"].tolist() == ["arena"] * 5 + ["mine"] * 3
    battles = parse_battles(merged)
    both = [*parse_battles(labelled_table), *parse_battles(plain_table, "plain")]
    assert [(b.prompt, b.response_a, b.response_b) for b in battles] == [
        (b.prompt, b.response_a, b.response_b) for b in both
    ]
    labels = parse_labels(merged)
    np.testing.assert_array_equal(labels[:5], parse_labels(labelled_table))
    np.testing.assert_array_equal(labels[5:], [[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    assert merged["model_a"].tolist()[5:] == ["m", "n", "o"]
    assert merged["id"].tolist()[5:] == ["mine:x", "mine:y", "mine:z"]  # integers and texts do not mix


def test_ids_are_kept_where_they_are_unique_and_of_one_kind(labelled_table):
    other = labelled_table.assign(id=labelled_table["id"] + 1)
    merged = merge_sources({"a": labelled_table, "b": other})
    assert merged["id"].tolist() == [*labelled_table["id"], *other["id"]]
    merged = merge_sources({"a": labelled_table, "b": labelled_table})
    assert merged["id"].tolist()[4:6] == ["a:7", "b:30192"]


def test_a_tables_own_sources_are_finer_and_stay(labelled_table):
    own = ["one", "two", None, "", "one"]
    assert merge_sources({"a": labelled_table.assign(source=own)})["source"].tolist() == ["one", "two", "a", "a", "one"]


def test_a_table_that_cannot_be_used_is_named(labelled_table):
    with pytest.raises(InputError, match=r"^bad: no labels found"):
        merge_sources({"good": labelled_table, "bad": labelled_table.drop(columns="winner_model_a")})
    with pytest.raises(InputError, match="nothing to merge"):
        merge_sources({})
