import json

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.corpus import as_labelled, data_hash, read_labelled
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY


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


def test_ids_of_files_that_do_not_go_together_name_their_files(tmp_path):
    tables = {"numbers": make_table(4, "x", 0, 2), "texts": make_table(4, "y", 0, 2, start=10).astype({"id": str})}
    for name, table in tables.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    data = read_labelled([tmp_path / "numbers.parquet", tmp_path / "texts.parquet"], THREE_WAY)
    assert data.battles.ids.tolist() == [f"numbers:{n}" for n in range(4)] + [f"texts:{n}" for n in range(10, 14)]


def test_sources_and_groups_are_texts_and_what_is_missing_is_filled(tmp_path):
    """Numbers in a column with gaps become floats in pandas; a row without a group is of its prompt's."""
    table = make_table(4, "x", 0, 2).assign(source=[7, None, 7, 8], group=[3, 3, None, None])
    table["prompt"] = [json.dumps([text]) for text in ("one", "two", "three", "three")]
    table.to_parquet(tmp_path / "mine.parquet")
    data = read_labelled([tmp_path / "mine.parquet"], THREE_WAY)
    assert data.sources.tolist() == ["7", "mine", "7", "8"]
    assert data.groups.tolist() == ["3", "3", '["three"]', '["three"]']
    empty = as_labelled(table.assign(source="", group=np.nan), THREE_WAY)
    assert set(empty.sources) == {"data"}
    assert empty.groups.tolist() == table["prompt"].tolist()


def test_group_numbers_are_of_their_own_file_and_texts_hold_across_files(tmp_path):
    for name, start in (("one", 0), ("two", 10)):
        groups = {"numbers": [0, 1, 2], "texts": ["a", "b", "c"], "apart": [start, start + 1, start + 2]}
        for kind, named in groups.items():
            table = make_table(3, "x", start=start).assign(group=named)
            table.to_parquet(tmp_path / f"{kind}-{name}.parquet")

    def groups_of(kind):
        files = [tmp_path / f"{kind}-{name}.parquet" for name in ("one", "two")]
        return read_labelled(files, THREE_WAY).groups.tolist()

    assert groups_of("numbers") == [f"numbers-{name}:{n}" for name in ("one", "two") for n in range(3)]
    assert groups_of("texts") == ["a", "b", "c"] * 2
    assert groups_of("apart") == ["0", "1", "2", "10", "11", "12"], "one numbering that goes on in another file"


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


def test_the_hash_is_of_contents_and_labels_in_order(tmp_path):
    make_table(30, "x").to_csv(tmp_path / "x.csv", index=False)
    data = read_labelled([tmp_path / "x.csv"], THREE_WAY)
    rows = np.arange(20)
    some = data.take(rows)
    assert data_hash(some) == data_hash(data.take(rows))
    assert data_hash(data.take(rows[::-1])) != data_hash(some)
    relabelled = type(some)(some.battles, some.labels[:, [1, 0, 2]], some.sources, some.groups)
    assert data_hash(relabelled) != data_hash(some)
    rewritten = type(some)(some.battles.swapped(), some.labels, some.sources, some.groups)
    assert data_hash(rewritten) != data_hash(some)
