import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.predictions import SoftLabelsWarning, name_files, read_labels, read_predictions
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from tests.predicted import predictions, probability_table


@pytest.fixture
def file(tmp_path):
    probability_table(predictions(6)[0]["m0"]).to_csv(tmp_path / "p.csv", index=False)
    return tmp_path / "p.csv"


def test_rows_are_taken_by_id_in_the_order_asked_for(file):
    read = read_predictions(file)
    positions = [4, 0, 2]
    np.testing.assert_array_equal(read.take(read.ids[positions]), read.probabilities[positions])


def test_missing_ids_are_listed_with_the_kinds_of_ids(file):
    read = read_predictions(file)
    with pytest.raises(InputError, match=r"p\.csv has no probabilities for 2 of 3 ids: 5, 6\..*int64.*of the labels"):
        read.take(pd.Index([5, int(read.ids[0]), 6]), "the labels")
    with pytest.raises(InputError, match=r"no probabilities for 12 of 12 ids: .*, …\."):
        read.take(pd.Index(range(12)))
    with pytest.raises(InputError, match=r"Its ids are int64, those of the battles (object|str)"):
        read.take(pd.Index([str(read.ids[0])]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="winner_tie"), "lacks the columns winner_tie"),
        (lambda table: table.drop(columns="id"), "lacks the columns id"),
        (lambda table: table.assign(id=1), "more than once"),
        (lambda table: table.assign(winner_tie=2), "does not sum to 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(file, change, message):
    change(pd.read_csv(file)).to_csv(file, index=False)
    with pytest.raises(InputError, match=rf"p\.csv.*{message}"):
        read_predictions(file)


def test_labels_are_one_hot_soft_or_names_of_winners(tmp_path):
    one_hot, named = tmp_path / "one_hot.csv", tmp_path / "named.parquet"
    pd.DataFrame(
        {"id": ["a", "b"], "winner_model_a": [1, 0], "winner_model_b": [0, 0.5], "winner_tie": [0, 0.5]}
    ).to_csv(one_hot, index=False)
    pd.DataFrame({"id": ["a", "b"], "winner": ["model_a", "tie"], "group": ["x", "x"]}).to_parquet(named)
    assert read_labels(one_hot).labels.tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
    assert read_labels(one_hot).groups is None
    assert read_labels(named).labels.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert read_labels(named).groups.tolist() == ["x", "x"]
    assert read_labels(one_hot, groups="winner_tie").groups.tolist() == [0, 0.5]


def test_labels_that_cannot_be_used_name_their_file(tmp_path):
    path = tmp_path / "y.csv"
    pd.DataFrame({"id": [1], "winner": ["model_a"]}).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"y\.csv has no column 'prompt_id'; it has id, winner"):
        read_labels(path, groups="prompt_id")
    pd.DataFrame({"id": [1], "label": [0]}).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"y\.csv: no labels found"):
        read_labels(path)
    pd.DataFrame({"id": [1], "winner": ["tie"]}).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"y\.csv: winner must be one of model_a, model_b"):
        read_labels(path, TWO_WAY)


def test_labels_without_winners_are_told_and_out_of_fold_predictions_refused(tmp_path):
    path = tmp_path / "y.csv"
    table = pd.DataFrame({"id": range(200), "winner_model_a": 0.5, "winner_model_b": 0.3, "winner_tie": 0.2})
    table.to_csv(path, index=False)
    with pytest.warns(SoftLabelsWarning, match=r"0 of 200 rows of .*y\.csv have a winner: labels are shares"):
        read = read_labels(path)
    assert read.labels.tolist() == [[0.5, 0.3, 0.2]] * 200
    table.loc[:3, list(THREE_WAY.columns)] = [1, 0, 0]  # as where annotators agreed
    table.to_csv(path, index=False)
    read_labels(path)
    table.assign(label_model_a=1, label_model_b=0, label_tie=0).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"y\.csv holds out-of-fold predictions: .* Give the file labels\.parquet"):
        read_labels(path)


@pytest.mark.parametrize("column", ["group", "prompt_id"])
def test_a_row_without_a_group_is_named_with_its_file_and_column(tmp_path, column):
    path = tmp_path / "y.csv"
    path.write_text(f"id,winner,{column}\n1,tie,x\n2,tie,\n")
    with pytest.raises(InputError, match=rf"y\.csv: column '{column}' .* 1 of 2 rows have no group there.* row 1 "):
        read_labels(path, groups=None if column == "group" else column)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.csv", "b/b.parquet"], ["a", "b"]),
        (["one/p.csv", "two/p.csv", "q.csv"], ["one/p", "two/p", "q"]),
        (["a.csv.gz", "v1.2.jsonl", "a.jsonl.gz"], ["a (1)", "v1.2", "a (2)"]),
        (["p.csv", "p.csv", "p.parquet"], ["p (1)", "p (2)", "p (3)"]),
    ],
)
def test_every_file_gets_a_name_of_its_own(paths, names):
    assert name_files(paths) == names


def test_columns_are_those_of_the_task(file):
    assert read_predictions(file).probabilities.shape == (6, THREE_WAY.n_classes)
