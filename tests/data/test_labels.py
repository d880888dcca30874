import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import TWO_WAY


def test_one_hot_labels_soft_labels_and_winners_give_the_same_array(labelled_table):
    one_hot = parse_labels(labelled_table)
    winners = pd.DataFrame({"winner": ["model_a", "model_a", "model_b", "tie", "tie (bothbad)"]})
    assert np.array_equal(parse_labels(winners), one_hot)
    soft = labelled_table.assign(winner_model_a=0.25, winner_model_b=0.7499, winner_tie=0.0)
    assert parse_labels(soft).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-12)


def test_a_task_without_ties_refuses_a_tie():
    table = pd.DataFrame({"winner": ["model_b", "tie"]})
    with pytest.raises(InputError, match="row 1: 'tie'"):
        parse_labels(table, TWO_WAY)
    assert parse_labels(table[:1], TWO_WAY).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"winner": ["model_a", "draw"]}, "row 1: 'draw'"),
        ({"winner": ["A", "draw"]}, r"\.replace\(\{'A': 'model_a', 'draw': 'tie'\}\)"),
        ({"winner": ["A", "C"]}, r"row 1: 'C'$"),
        ({"winner": ["model_a", None]}, "row 1"),
        ({"winner": ["model_a", ["model_a"]]}, "row 1"),
        ({"label": [0, 1]}, "no labels found"),
        ({"winner_model_a": [1, 0], "winner_model_b": [0, 0], "winner_tie": [0, 0]}, "row 1"),
        ({"winner_model_a": [1, np.nan], "winner_model_b": [0, 0], "winner_tie": [0, 0]}, "not finite"),
        ({"winner_model_a": [1, "a"], "winner_model_b": [0, 0], "winner_tie": [0, 0]}, "must be numbers"),
    ],
)
def test_labels_that_are_none_are_refused(columns, words):
    with pytest.raises(InputError, match=words):
        parse_labels(pd.DataFrame(columns))
