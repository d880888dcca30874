import itertools

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.scorers.saved import SavedScorer
from lmsys_ensemble.testing.check import check_scorer

COLUMNS = list(THREE_WAY.columns)


def battles_with(ids):
    texts = [("text",)] * len(ids)
    return Battles(pd.Index(ids), texts, texts, texts)


@pytest.fixture
def save(tmp_path):
    """Return a function that writes a table and returns its path."""

    def write(table, name="saved.csv"):
        path = tmp_path / name
        (table.to_csv if path.suffix == ".csv" else table.to_parquet)(path, index=False)
        return str(path)

    return write


@pytest.fixture
def saved_table():
    probabilities = [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.3334, 0.3333, 0.3333]]
    table = pd.DataFrame(probabilities, columns=COLUMNS)
    table.insert(0, "id", [4_294_967_299, 5, 7])
    return table


@pytest.mark.parametrize("name", ["saved.csv", "saved.parquet"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_probabilities_are_aligned_by_id_never_by_position(save, saved_table, name, order):
    path = save(saved_table.iloc[list(order)], name)
    for wanted in ([4_294_967_299, 5, 7], [7, 4_294_967_299], [5]):
        with SavedScorer(path) as scorer:
            logits = scorer.score(battles_with(wanted))
        assert logits.dtype == np.float32
        assert softmax(logits) == pytest.approx(saved_table.set_index("id").loc[wanted].to_numpy(), abs=1e-6)


def test_the_saved_scorer_keeps_the_contract_of_scorers(save, saved_table):
    check_scorer(SavedScorer(save(saved_table)), battles_with([7, 5]))


def test_ids_that_are_texts_are_not_taken_for_numbers(save, saved_table):
    path = save(saved_table.assign(id=["007", "7", "07"]))
    logits = SavedScorer(path).score(battles_with(["07", "007"]))
    assert softmax(logits)[1] == pytest.approx([0.5, 0.3, 0.2], abs=1e-6)


def test_other_columns_can_be_named_in_the_order_of_the_classes(save, saved_table):
    path = save(saved_table.rename(columns=dict(zip(COLUMNS, ["b", "a", "tie"], strict=True))))
    logits = SavedScorer(path, columns=["a", "b", "tie"]).score(battles_with([5, 4_294_967_299]))
    assert softmax(logits)[1] == pytest.approx([0.3, 0.5, 0.2], abs=1e-6)


def test_a_probability_of_zero_stays_finite(save, saved_table):
    path = save(saved_table.assign(winner_model_a=1.0, winner_model_b=0.0, winner_tie=0.0))
    logits = SavedScorer(path).score(battles_with([5]))
    assert np.isfinite(logits).all()
    assert softmax(logits)[0] == pytest.approx([1, 0, 0])


def test_it_is_called_like_its_file_unless_named():
    assert SavedScorer("folder/gemma.csv").name == "gemma"
    assert SavedScorer("folder/gemma.csv", name="mine").name == "mine"


def test_the_file_is_read_by_loading_and_again_after_closing(save, saved_table):
    scorer = SavedScorer(save(saved_table))
    scorer.load()
    save(saved_table.assign(winner_model_a=[0.2, 0.8, 0.1], winner_model_b=0.0, winner_tie=[0.8, 0.2, 0.9]))
    before = softmax(scorer.score(battles_with([5])))
    scorer.close()
    after = softmax(scorer.score(battles_with([5])))
    assert before[0] == pytest.approx([0.1, 0.1, 0.8], abs=1e-6)
    assert after[0] == pytest.approx([0.8, 0.0, 0.2], abs=1e-6)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([5, 6, 8], r"no probabilities for 2 of 3 ids: 6, 8"),
        (["5", "7"], "no probabilities for 2 of 2 ids: '5', '7'. Its ids are int64, those of the battles (str|object)"),
        (list(range(100, 200)), "100 of 100 ids"),
    ],
)
def test_ids_that_are_not_in_the_file_are_named(save, saved_table, ids, words):
    with pytest.raises(InputError, match=words) as caught:
        SavedScorer(save(saved_table)).score(battles_with(ids))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"winner_tie": 0.9}, "does not sum to 1"),
        ({"winner_tie": [0.2, np.nan, 0.3]}, "not finite"),
        ({"winner_tie": "high"}, "not finite|must be numbers"),
        ({"winner_model_a": -0.5}, "negative"),
        ({"id": [5, 5, 7]}, "occur more than once"),
    ],
)
def test_a_file_without_probabilities_is_refused(save, saved_table, change, words):
    path = save(saved_table.assign(**change))
    with pytest.raises(InputError, match=words):
        SavedScorer(path).load()


def test_missing_columns_and_files_are_named(save, saved_table, tmp_path):
    path = save(saved_table.drop(columns=["id", "winner_tie"]))
    with pytest.raises(InputError, match="lacks the columns id, winner_tie; it has winner_model_a, winner_model_b"):
        SavedScorer(path).load()
    with pytest.raises(InputError, match="there is no file"):
        SavedScorer(str(tmp_path / "absent.csv")).load()


def test_nothing_is_read_when_the_scorer_is_made(battles_table):
    scorer = SavedScorer("absent.csv")
    with pytest.raises(InputError, match="there is no file"):
        scorer.score(parse_battles(battles_table))
