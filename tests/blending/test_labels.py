import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.blending.labels import parse_class_labels
from lmsys_ensemble.errors import ConfigError, InputError

NAMES = ["model_a", "tie", "model_b", "model_a"]


def parse(y, classes=None, n_rows=4):
    return parse_class_labels(y, classes, n_classes=3, n_rows=n_rows)


@pytest.mark.parametrize(
    "y", [NAMES, np.array(NAMES), np.array(NAMES, dtype=object), pd.Series(NAMES), pd.Series(NAMES, dtype="category")]
)
def test_names_belong_to_the_columns_in_sorted_order(y):
    classes, labels = parse(y)
    assert classes.tolist() == ["model_a", "model_b", "tie"]
    assert labels.argmax(axis=1).tolist() == [0, 2, 1, 0]
    assert labels.sum(axis=1).tolist() == [1, 1, 1, 1]


def test_another_order_is_stated():
    classes, labels = parse(NAMES, ["tie", "model_a", "model_b"])
    assert classes.tolist() == ["tie", "model_a", "model_b"]
    assert labels.argmax(axis=1).tolist() == [1, 0, 2, 1]
    # A part of the rows need not hold all classes then.
    assert parse(["tie"] * 4, ["tie", "model_a", "model_b"])[1].argmax(axis=1).tolist() == [0] * 4
    assert parse([3, 1, 2, 3], [1, 2, 3])[1].argmax(axis=1).tolist() == [2, 0, 1, 2]


def test_positions_and_shares_have_no_names():
    for y in ([0, 2, 1, 0], np.eye(3)[[0, 2, 1, 0]]):
        classes, labels = parse(y)
        assert classes.tolist() == [0, 1, 2]
        assert labels.argmax(axis=1).tolist() == [0, 2, 1, 0]
    assert parse(np.eye(3)[[0, 2, 1, 0]], ["x", "y", "z"])[0].tolist() == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("y", "classes", "error", "words"),
    [
        (["a", "b", "a", "b"], None, InputError, r"2 names 'a', 'b', the probabilities 3 classes.*classes=\["),
        (["a", None, "b", "c"], None, InputError, "1 of 4 labels are missing, first in row 1"),
        (pd.Series(["a", np.nan, "b", "c"]), None, InputError, "missing, first in row 1"),
        (np.array(["a", 1, "b", "c"], dtype=object), None, InputError, "mix names and numbers"),
        (["a", "b", "c", "d"], ["a", "b", "c"], InputError, "row 3, 'd'; the classes are 'a', 'b', 'c'"),
        (["a", "b", "c"], None, InputError, "expected 4 rows"),
        (NAMES, ["a", "b"], ConfigError, "classes must be 3 different names"),
        (NAMES, ["a", "b", "b"], ConfigError, "classes must be 3 different names"),
        ([0, 1, 2, 3], None, InputError, "no class"),
    ],
)
def test_labels_that_are_no_classes_are_refused(y, classes, error, words):
    with pytest.raises(error, match=words):
        parse(y, classes)
