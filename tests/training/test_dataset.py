import json

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.training.dataset import data_hash, encode_both_orders, read_labelled, split
from lmsys_ensemble.training.settings import DataSettings
from tests.tiny import BOS, EOS, Encoder, get_template, make_tokenizer


def make_table(n_rows, source, seed=0, n_groups=None, start=0):
    """Return labelled battles of one source; groups are shared by several rows, and between sources."""
    generator = np.random.default_rng(seed)
    winners = generator.choice(["model_a", "model_b", "tie"], n_rows)
    return pd.DataFrame(
        {
            "id": np.arange(start, start + n_rows),
            "prompt": [
                json.dumps([f"prompt {number}"]) for number in generator.integers(0, n_groups or n_rows, n_rows)
            ],
            "response_a": [json.dumps([f"a {row}"]) for row in range(n_rows)],
            "response_b": [json.dumps([f"b {row} and more"]) for row in range(n_rows)],
            "winner": winners,
            "source": source,
        }
    )


@pytest.fixture
def data(tmp_path):
    make_table(300, "one", 0, 60).to_parquet(tmp_path / "one.parquet")
    make_table(200, "two", 1, 60, start=1000).to_parquet(tmp_path / "two.parquet")
    return read_labelled([tmp_path / "one.parquet", tmp_path / "two.parquet"], THREE_WAY)


def of(data, source):
    return data.take(np.flatnonzero(data.sources == source))


def test_ids_of_files_that_do_not_go_together_name_their_files(tmp_path):
    tables = {"numbers": make_table(4, "x", 0, 2), "texts": make_table(4, "y", 0, 2, start=10).astype({"id": str})}
    for name, table in tables.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    data = read_labelled([tmp_path / "numbers.parquet", tmp_path / "texts.parquet"], THREE_WAY)
    assert data.battles.ids.tolist() == [f"numbers:{n}" for n in range(4)] + [f"texts:{n}" for n in range(10, 14)]


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_share_a_prompt_are_never_both_learned_from_and_held_out(data, seed):
    settings = DataSettings(files=[], holdout={"one": 0.3, "default": 0.1})
    learn, held = split(data, settings, seed)
    assert not set(learn.groups) & set(held.groups)
    assert len(held) > 30
    assert len(learn) > 200
    assert set(learn.sources) == set(held.sources) == {"one", "two"}
    texts = [battle.prompt for battle in learn.battles]
    assert not set(texts) & {battle.prompt for battle in held.battles}
    assert len(of(held, "one")) / 300 > 2 * len(of(held, "two")) / 200


def test_the_column_group_decides_where_there_is_one(tmp_path):
    table = make_table(60, "one").assign(group=np.arange(60) // 6)
    table.to_parquet(tmp_path / "one.parquet")
    learn, held = split(
        read_labelled([tmp_path / "one.parquet"], THREE_WAY), DataSettings(files=[], holdout={"default": 0.3}), 0
    )
    assert len(set(held.groups)) == 3
    assert len(held) == 18
    assert set(learn.groups) | set(held.groups) == set(range(10))


def test_caps_are_for_learning_only_and_a_source_can_be_measured_without_being_learned(data):
    learn, held = split(data, DataSettings(files=[], rows={"one": 0, "two": 25}, holdout={"default": 0.2}), 3)
    uncapped, held_without = split(data, DataSettings(files=[], holdout={"default": 0.2}), 3)
    assert set(learn.sources) == {"two"}
    assert len(learn) <= 25 < len(of(uncapped, "two"))
    assert list(held.battles.ids) == list(held_without.battles.ids)


def test_a_split_is_repeatable_and_depends_on_the_seed(data):
    settings = DataSettings(files=[], rows={"one": 50})
    ids = [list(split(data, settings, seed)[0].battles.ids) for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


def test_without_a_share_nothing_is_held_out(data):
    learn, held = split(data, DataSettings(files=[], holdout={"default": 0.0}), 0)
    assert (len(learn), len(held)) == (500, 0)


def test_soft_labels_and_the_files_name_as_source(tmp_path):
    table = make_table(3, "x").drop(columns=["source", "winner"])
    soft = np.array([[0.2, 0.3, 0.5], [1, 0, 0], [0, 0.5, 0.5]])
    table[list(THREE_WAY.columns)] = soft
    table.to_csv(tmp_path / "arena.csv", index=False)
    data = read_labelled([tmp_path / "arena.csv"], THREE_WAY)
    np.testing.assert_allclose(data.labels, soft)
    assert set(data.sources) == {"arena"}
    assert data.battles[0].response_a == ("a 0",)


def test_labels_that_are_no_classes_name_the_file(tmp_path):
    make_table(3, "x").assign(winner="nobody").to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(InputError, match=r"bad\.csv: winner must be one of model_a, model_b, tie; 3 are not"):
        read_labelled([tmp_path / "bad.csv"], THREE_WAY)
    make_table(30, "x").to_csv(tmp_path / "ties.csv", index=False)
    with pytest.raises(InputError, match=r"ties\.csv: winner must be one of model_a, model_b"):
        read_labelled([tmp_path / "ties.csv"], TWO_WAY)


def test_the_hash_is_of_contents_and_labels_in_order(tmp_path, data):
    rows = np.arange(20)
    some = data.take(rows)
    assert data_hash(some) == data_hash(data.take(rows))
    assert data_hash(data.take(rows[::-1])) != data_hash(some)
    relabelled = type(some)(some.battles, some.labels[:, [1, 0, 2]], some.sources, some.groups)
    assert data_hash(relabelled) != data_hash(some)
    rewritten = type(some)(some.battles.swapped(), some.labels, some.sources, some.groups)
    assert data_hash(rewritten) != data_hash(some)


@pytest.mark.parametrize("task", [THREE_WAY, TWO_WAY])
def test_the_other_order_exchanges_responses_and_labels_together(tmp_path, task):
    table = make_table(20, "x")
    table["winner"] = np.where(table["winner"] == "tie", "model_b", table["winner"])
    table.to_csv(tmp_path / "x.csv", index=False)
    data = read_labelled([tmp_path / "x.csv"], task)
    encoder = Encoder(make_tokenizer().backend_tokenizer, get_template("turns"), max_tokens=100, bos_id=BOS, eos_id=EOS)
    encoded, labels, rows = encode_both_orders(data, encoder, task, both=True)
    assert len(encoded) == len(labels) == len(rows) == 2 * len(data)
    backwards = encoder.encode(data.battles.swapped())
    for position, row in enumerate(rows):
        swapped = position >= len(data)
        assert row == position % len(data)
        assert (
            encoded.ids[position].tolist() == (backwards if swapped else encoder.encode(data.battles)).ids[row].tolist()
        )
        a, b, *rest = data.labels[row]
        assert labels[position].tolist() == ([b, a, *rest] if swapped else [a, b, *rest])
    once, labels, rows = encode_both_orders(data, encoder, task, both=False)
    assert len(once) == len(labels) == len(rows) == len(data)
