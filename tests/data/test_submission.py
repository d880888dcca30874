import gzip
import os
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from lmsys_ensemble.data.submission import build_submission, check_sample, write_submission
from lmsys_ensemble.errors import InputError, SubmissionError
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY

COLUMNS = list(THREE_WAY.columns)
BIG_IDS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8, unique=True)
TEXT_IDS = st.lists(st.text("07a ", min_size=1, max_size=4), min_size=1, max_size=8, unique=True)


def predictions_for(ids, task=THREE_WAY):
    """Return predictions that are recognisable by id."""
    rows = [np.random.default_rng(zlib.crc32(repr(row_id).encode())).normal(size=task.n_classes) for row_id in ids]
    table = pd.DataFrame(softmax(np.reshape(rows, (-1, task.n_classes))), columns=list(task.columns))
    table.insert(0, "id", list(ids))
    return table


@given(BIG_IDS | TEXT_IDS, st.data())
def test_rows_follow_the_sample_by_id_with_columns_and_dtype_of_the_sample(ids, data):
    predictions = predictions_for(ids)
    wanted = data.draw(st.permutations(ids))
    columns = data.draw(st.permutations(["id", *COLUMNS]))
    sample = pd.DataFrame({"id": wanted, **dict.fromkeys(COLUMNS, 1 / 3)})[columns]
    submission = build_submission(predictions, sample)
    assert submission.columns.tolist() == columns
    assert submission["id"].tolist() == wanted
    assert submission["id"].dtype == sample["id"].dtype
    by_id = predictions.set_index("id")
    for row in submission.to_dict("records"):
        assert [row[name] for name in COLUMNS] == pytest.approx(by_id.loc[row["id"], COLUMNS].tolist(), abs=1e-12)
    assert submission[COLUMNS].sum(axis=1).to_numpy() == pytest.approx(np.ones(len(ids)), abs=1e-12)


@pytest.mark.parametrize(
    "ids",
    [
        pd.Series([2**31 + 1, 4_294_967_299, 5]),
        pd.Series(["007", "7", "07"]),
        pd.Series([1, 2, 3], dtype="int32"),
        pd.Series([2**64 - 1, 1, 2], dtype="uint64"),
        pd.Series(["a", "b", "c"], dtype=object),
    ],
    ids=lambda ids: str(ids.dtype),
)
def test_without_a_sample_rows_and_ids_stay_as_they_are_and_a_file_brings_them_back(ids, tmp_path):
    predictions = predictions_for(ids.tolist()).assign(id=ids, note="dropped")
    submission = build_submission(predictions)
    assert submission.columns.tolist() == ["id", *COLUMNS]
    assert submission["id"].dtype == ids.dtype
    assert submission["id"].tolist() == ids.tolist()
    path = tmp_path / "submission.csv"
    write_submission(submission, path)
    lines = path.read_text().splitlines()
    assert lines[0] == "id,winner_model_a,winner_model_b,winner_tie"
    assert [line.split(",")[0] for line in lines[1:]] == [str(row_id) for row_id in ids]
    written = [[float(value) for value in line.split(",")[1:]] for line in lines[1:]]
    assert written == submission[COLUMNS].to_numpy().tolist()  # all digits


def test_the_predictions_are_not_changed():
    predictions = predictions_for([1, 2, 3])
    before = predictions.copy(deep=True)
    build_submission(predictions, predictions[::-1])
    assert_frame_equal(predictions, before)


def test_a_table_with_another_index_is_aligned_by_id():
    predictions = predictions_for([5, 6, 7])
    assert_frame_equal(build_submission(predictions.set_index(pd.Index([9, 9, 9]))), build_submission(predictions))


def test_a_task_of_two_classes_has_two_columns():
    submission = build_submission(predictions_for([1, 2], TWO_WAY), task=TWO_WAY)
    assert submission.columns.tolist() == ["id", "winner_model_a", "winner_model_b"]


def test_no_rows_make_a_submission_of_no_rows():
    empty = pd.DataFrame({"id": pd.Series(dtype="int64"), **{name: pd.Series(dtype="float64") for name in COLUMNS}})
    submission = build_submission(empty, empty)
    assert len(submission) == 0
    assert submission["id"].dtype == "int64"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"winner_tie": [0.1, np.nan, 0.1]}, "1 rows are not finite: 6"),
        ({"winner_tie": [np.inf, 0.1, -np.inf]}, "2 rows are not finite: 5, 7"),
        ({"winner_model_a": -0.1}, "3 rows are negative: 5, 6, 7"),
        ({"winner_model_a": [0.9, 0.2, 0.2]}, "1 rows do not sum to 1: 5"),
        ({"winner_model_a": 0.0, "winner_model_b": 0.0, "winner_tie": 0.0}, "3 rows do not sum to 1"),
        ({"winner_model_a": "high"}, "no numbers"),
        ({"id": [5, 5, 7]}, "predictions: 1 ids occur more than once"),
        ({"id": [5.0, 6.0, 7.0]}, "predictions: ids must be integers or texts"),
    ],
)
def test_predictions_that_must_not_be_submitted_are_named_by_id(change, words):
    predictions = predictions_for([5, 6, 7]).assign(winner_model_a=0.2, winner_model_b=0.7, winner_tie=0.1)
    build_submission(predictions)
    with pytest.raises(SubmissionError, match=words):
        build_submission(predictions.assign(**change))


def test_missing_columns_are_named():
    with pytest.raises(SubmissionError, match="lack the columns id, winner_tie"):
        build_submission(predictions_for([1]).drop(columns=["id", "winner_tie"]))


@pytest.mark.parametrize(
    ("sample_ids", "words"),
    [
        ([1, 2, 4], r"1 of the sample have no prediction \(4\), 1 predictions are not in the sample \(3\)"),
        ([1, 2], r"0 of the sample have no prediction \(none\), 1 predictions"),
        ([1, 2, 3, 4], r"1 of the sample have no prediction \(4\), 0 predictions"),
        (["1", "2", "3"], "int64 in the predictions, (str|object) in the sample"),
        ([1, 2, 2], "sample: 1 ids occur more than once"),
        (list(range(100, 200)), "…"),
    ],
)
def test_ids_that_differ_from_the_samples_are_named(sample_ids, words):
    sample = pd.DataFrame({"id": sample_ids, **dict.fromkeys(COLUMNS, 1 / 3)})
    with pytest.raises(SubmissionError, match=words):
        build_submission(predictions_for([1, 2, 3]), sample)


def test_a_sample_of_another_competition_is_refused():
    listed = (
        "the sample has the columns id, label, expected id, winner_model_a, winner_model_b, winner_tie or .* or id, "
    )
    with pytest.raises(SubmissionError, match=f"{listed}winner$"):
        build_submission(predictions_for([1]), pd.DataFrame({"id": [1], "label": ["tie"]}))
    with pytest.raises(SubmissionError, match="column winner holds 'A', expected model_a, model_b"):
        build_submission(predictions_for([1], TWO_WAY), pd.DataFrame({"id": [1], "winner": ["A"]}), task=TWO_WAY)


@pytest.mark.parametrize("task", [TWO_WAY, THREE_WAY])
def test_a_sample_of_winners_gets_the_likelier_response_in_its_own_order(task):
    predictions = predictions_for(["x", "y", "z"], task)
    predictions[list(task.columns)] = [[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]] if task == TWO_WAY else [
        [0.1, 0.2, 0.7], [0.3, 0.2, 0.5], [0.0, 0.0, 1.0],
    ]  # fmt: skip
    sample = pd.DataFrame({"winner": ["model_a", "", "model_b"], "id": ["z", "x", "y"]})
    submission = build_submission(predictions, sample, task=task)
    assert submission.columns.tolist() == ["winner", "id"]
    assert dict(zip(submission["id"], submission["winner"], strict=True)) == {
        "x": "model_b", "y": "model_a", "z": "model_a",
    }  # fmt: skip
    assert submission["id"].tolist() == ["z", "x", "y"]


def test_a_sample_of_winners_that_names_ties_gets_ties():
    predictions = predictions_for([1, 2]).assign(winner_model_a=0.25, winner_model_b=0.25, winner_tie=0.5)
    sample = pd.DataFrame({"id": [2, 1], "winner": ["tie", "model_a"]})
    assert build_submission(predictions, sample)["winner"].tolist() == ["tie", "tie"]


def test_a_sample_without_ties_gets_probabilities_of_the_two_that_sum_to_1():
    predictions = predictions_for([1, 2, 3])
    sample = pd.DataFrame({"id": [3, 1, 2], **dict.fromkeys(TWO_WAY.columns, 0.5)})
    submission = build_submission(predictions, sample).set_index("id")
    assert submission.columns.tolist() == list(TWO_WAY.columns)
    before = predictions.set_index("id").loc[[3, 1, 2], list(TWO_WAY.columns)]
    np.testing.assert_allclose(submission, before.div(before.sum(axis=1), axis=0))
    with pytest.raises(SubmissionError, match="expected id, winner_model_a, winner_model_b or id, winner"):
        build_submission(
            predictions_for([1], TWO_WAY), pd.DataFrame({"id": [1], **dict.fromkeys(COLUMNS, 0)}), task=TWO_WAY
        )


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (
            {"id": [1, 2, 4]},
            r"1 of the sample have no prediction \(4\), 1 rows of test.csv are not in the sample \(3\)",
        ),
        ({"id": ["1", "2", "3"]}, "ids are int64 in the rows of test.csv, (str|object) in the sample"),
        ({"id": [1, 2, 2]}, "sample: 1 ids occur more than once"),
        ({"label": ["tie"] * 3}, "the sample has the columns id, .*label, expected"),
    ],
)
def test_a_sample_is_checked_by_ids_alone(sample, words):
    right = pd.DataFrame({"id": [1, 2, 3], **dict.fromkeys(COLUMNS, 1 / 3)})
    ids = pd.Index([3, 1, 2])
    assert check_sample(right, ids).tolist() == [1, 2, 3]
    with pytest.raises(SubmissionError, match=words):
        check_sample(right.assign(**sample), ids, source="rows of test.csv")


def test_a_sample_with_a_column_twice_is_refused():
    sample = pd.DataFrame([[1, 1, 0, 0, 0]], columns=["id", "id", *COLUMNS])
    with pytest.raises(SubmissionError, match="the sample has the columns id, id"):
        check_sample(sample, pd.Index([1]))


def test_a_packed_submission_is_that_submission(tmp_path):
    write_submission(predictions_for([1, 2]), tmp_path / "plain.csv")
    write_submission(predictions_for([1, 2]), tmp_path / "packed.csv.gz")
    assert gzip.decompress((tmp_path / "packed.csv.gz").read_bytes()) == (tmp_path / "plain.csv").read_bytes()


def test_a_submission_error_is_an_input_error():
    with pytest.raises(InputError):
        build_submission(pd.DataFrame({"id": [1]}))


def test_a_submission_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "submission.csv"
    write_submission(predictions_for([1]), path)
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_submission(predictions_for([1, 2]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
