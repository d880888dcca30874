import json

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.cleaning.hygiene import clean, clean_labelled
from lmsys_ensemble.cleaning.normalization import normalise
from lmsys_ensemble.cleaning.settings import HygieneSettings
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.corpus import read_labelled
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.evaluation.folds import make_folds
from lmsys_ensemble.schema import THREE_WAY

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


CONTRADICTING = (("p", "x", "y", "A"), ("p", "y", "x", "A"), ("p", "x", "y", "A"), ("q", "x", "z", "B"))


LONG = "please write a short story about a cat that learns how to play chess with the old man next door"


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


def test_nothing_left_is_an_error_that_says_why():
    table = make_table(("p", "x", "y", "A"), ("q", None, None, "B"))
    with pytest.raises(InputError, match=r"none of 2 rows \(1: both responses are empty; 1: prompt and responses are"):
        clean(table, evaluation=table)
    with pytest.raises(InputError, match="the evaluation set: columns are missing"):
        clean(table, evaluation=table.drop(columns="prompt"))


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
