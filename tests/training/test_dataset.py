import numpy as np
import pytest

from lmsys_ensemble.data.corpus import read_labelled
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.training.dataset import encode_both_orders, split
from lmsys_ensemble.training.settings import DataSettings
from tests.data.test_corpus import make_table
from tests.tiny import BOS, EOS, Encoder, get_template, make_tokenizer


@pytest.fixture
def data(tmp_path):
    make_table(300, "one", 0, 60).to_parquet(tmp_path / "one.parquet")
    make_table(200, "two", 1, 60, start=1000).to_parquet(tmp_path / "two.parquet")
    return read_labelled([tmp_path / "one.parquet", tmp_path / "two.parquet"], THREE_WAY)


def of(data, source):
    return data.take(np.flatnonzero(data.sources == source))


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
    assert set(learn.groups) | set(held.groups) == set(map(str, range(10)))


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
