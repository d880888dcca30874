"""What a run learns from: cleaned and divided by prompt, or dealt into folds."""

import json

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.cli import main
from lmsys_ensemble.data.corpus import as_labelled
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training.dataset import split
from lmsys_ensemble.training.rows import deal, divide
from lmsys_ensemble.training.settings import TrainSettings
from tests.cleaning.test_hygiene import make_table
from tests.data.test_sources import arena_table
from tests.training.synthetic import make_preferences
from tests.training.test_run import write_inputs

LEAST = {"name": "x", "scorer": "llama", "base_model": "any"}


def settings_of(**data):
    return TrainSettings.model_validate({**LEAST, "data": data})


def make_rows(n_prompts=40):
    """Return two rows per prompt, every second one with another last word; every tenth prompt's rows are copies."""
    rows = []
    for prompt in range(n_prompts):
        words = " ".join(f"{word}{prompt // 2}" for word in ("a", "b", "c", "d", "e", "f", "g", "h"))
        text = f"{words} today" if prompt % 2 else words
        other = "" if prompt % 10 == 0 else " two"
        rows += [(text, f"one {prompt}", "b", "A"), (text, f"one {prompt}{other}", "b", "A")]
    return make_table(*rows, source=["x", "y"] * n_prompts)


def ids(data):
    return set(data.battles.ids)


def prompts(data):
    return {turns[0].removesuffix(" today") for turns in data.battles.prompts}


def test_without_hygiene_rows_are_divided_as_ever():
    data, settings = as_labelled(make_rows(), THREE_WAY), settings_of(holdout={"default": 0.3}, rows={"x": 9})
    divided, (learn, held) = divide(data, settings), split(data, settings.data, 0)
    assert divided.report is None
    assert (ids(divided.learn), ids(divided.held)) == (ids(learn), ids(held))
    assert prompts(learn) & prompts(held), "near copies are on both sides"


def test_equal_prompts_are_held_out_together_whatever_the_groups_say():
    """One file has a column group, another has none; so that names of groups do not meet."""
    table = make_rows()
    named = table.assign(group=[f"mine-{row // 2}" for row in range(len(table))])
    other = table.assign(id=table["id"] + 1000, group=table["prompt"], prompt=table["prompt"].str.upper())
    settings = settings_of(holdout={"default": 0.3})
    divided = divide(as_labelled(pd.concat([named, other]), THREE_WAY), settings)
    exact = [{turns[0].lower() for turns in part.battles.prompts} for part in (divided.learn, divided.held)]
    assert not exact[0] & exact[1]
    assert len(divided.held) > 10
    alone = divide(as_labelled(named, THREE_WAY), settings)
    assert ids(alone.held) == ids(split(as_labelled(named, THREE_WAY), settings.data, 0)[1]), "what needs no joining"


@pytest.mark.parametrize("hygiene", [None, {}])
def test_rows_without_a_group_are_of_their_prompt(hygiene):
    table = make_rows(40)
    prompt_of = table["prompt"].tolist()
    for groups in ([None] * 80, [f"mine-{row // 4}" if row % 3 else None for row in range(80)]):
        data = as_labelled(table.assign(group=groups), THREE_WAY)
        folds = deal(data, settings_of(hygiene=hygiene), 4)
        assert max(np.bincount(folds.fold_of)[1:]) <= 24, "no fold holds a large group"
        divided = divide(data, settings_of(hygiene=hygiene, holdout={"default": 0.5}))
        assert len(divided.held) > 20
        held = {prompt_of[row_id - 100] for row_id in ids(divided.held)}
        assert not held & {prompt_of[row_id - 100] for row_id in ids(divided.learn)}


@pytest.mark.parametrize("name", ["weights", "rows", "holdout"])
def test_a_source_that_no_row_is_of_is_an_error(name):
    data = as_labelled(make_rows(), THREE_WAY)
    settings = settings_of(**{name: {"xy": 0}, "holdout": {"default": 0.1, **({"xy": 0} if name == "holdout" else {})}})
    for act in (divide, lambda *given: deal(*given, 4)):
        with pytest.raises(ConfigError, match=rf"data\.{name} names the source 'xy', but no row is of it \("):
            act(data, settings)


def test_what_is_learned_from_is_clean_and_shares_no_prompt_with_what_is_held_out():
    data = as_labelled(make_rows(), THREE_WAY)
    divided = divide(data, settings_of(holdout={"default": 0.5}, hygiene={}))
    assert not prompts(divided.learn) & prompts(divided.held)
    assert len(divided.held) + divided.report.n_before == len(data)
    dropped = divided.report.ids("dropped", "duplicate")
    copies = {row_id for row_id in data.battles.ids if (row_id - 100) // 2 % 10 == 0}
    assert set(dropped) == {row_id for row_id in copies - ids(divided.held) if row_id % 2}
    assert ids(divided.learn) == set(data.battles.ids) - ids(divided.held) - set(dropped)
    assert copies & ids(divided.held), "what is held out stays as it came"
    np.testing.assert_array_equal(divided.held.labels[:, 0], 1)


def test_caps_are_of_what_cleaning_leaves():
    data = as_labelled(make_rows(), THREE_WAY)
    divided = divide(data, settings_of(holdout={}, hygiene={}, rows={"y": 30}))
    assert (divided.learn.sources == "y").sum() == 30
    assert len(divided.report.ids("dropped")) == 4, "of 40 rows of the source, so that 36 were left to choose from"


@pytest.mark.parametrize("hygiene", [None, {}])
def test_near_copies_of_a_prompt_are_in_one_fold_whether_rows_are_cleaned_or_not(hygiene):
    data = as_labelled(make_rows(), THREE_WAY)
    folds = deal(data, settings_of(hygiene=hygiene, holdout={"default": 0.5}), 4)
    assert folds.n_splits == 4
    assert len(folds.data) == (len(data) if hygiene is None else len(data) - 4)
    for fold in (1, 2, 3, 4):
        learn, held = folds.divide(fold)
        assert not prompts(learn) & prompts(held)
        assert ids(learn) | ids(held) == ids(folds.data)
        assert 8 <= (held.sources == "x").sum() <= 12
    if hygiene is None:
        np.testing.assert_array_equal(folds.data.labels, data.labels)


def test_labels_have_no_say_in_what_is_in_a_fold():
    table = make_rows()
    turned = table.assign(winner=np.resize(["model_b", "tie", "model_b"], len(table)))
    one, other = (deal(as_labelled(rows, THREE_WAY), settings_of(), 5).fold_of for rows in (table, turned))
    np.testing.assert_array_equal(one, other)


def test_a_source_that_is_not_learned_from_is_in_no_fold():
    data = as_labelled(make_rows(), THREE_WAY)
    assert set(deal(data, settings_of(rows={"y": 0}), 3).data.sources) == {"x"}
    with pytest.raises(InputError, match=r"no rows to learn from are left; look at data\.rows"):
        deal(data, settings_of(rows={"x": 0, "y": 0}), 3)


def test_training_says_and_writes_what_was_cleaned_and_what_was_skipped(checkpoints, tmp_path, capsys):
    table = make_preferences(40)
    table = pd.concat([table, table.iloc[:3].assign(id=[90, 91, 92])])
    table.loc[table["id"] == 5, ["response_a", "response_b"]] = json.dumps([""])
    recipe = write_inputs(
        tmp_path, checkpoints.base("llama"), data={"files": ["mine.csv", "lmsys-33k=arena.parquet"], "hygiene": {}},
        lora={"r": 2, "alpha": 4}, optimizer={"head_l2": 0.01, "epochs": 0}, head={},
    )  # fmt: skip
    table.to_csv(tmp_path / "mine.csv", index=False)
    arena_table().to_parquet(tmp_path / "arena.parquet")
    assert main(["train", str(recipe), "--output", str(tmp_path / "trained"), "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert "arena.parquet: rows that are no battles were skipped" in said
    assert "both responses are empty" in said
    values = json.loads((tmp_path / "trained" / "cleaning.json").read_text())
    assert values["settings"]["duplicates"] == "battle"
    assert [row["file"] for row in values["skipped"]] == ["arena.parquet"] * len(values["skipped"])
    assert values["rows_after"] < values["rows_before"]
    rows = json.loads((tmp_path / "trained" / "recipe.json").read_text())["training"]["rows"]
    assert sum(rows.values()) == values["rows_after"]
    assert set(rows) == {"synthetic", "lmsys-33k"}
