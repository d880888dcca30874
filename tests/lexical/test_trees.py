"""Files of trees are checked before LightGBM, which ends the process at a damaged one, reads them."""

import re

import numpy as np
import pytest

from lmsys_ensemble.errors import IntegrityError
from lmsys_ensemble.lexical.boosting import fit_trees, raw_logits
from lmsys_ensemble.lexical.trees import load_trees
from tests.lexical.test_boosting import make

pytest.importorskip("lightgbm", reason="boosted trees need an optional package")


@pytest.fixture(scope="module")
def fitted():
    features, labels = make(3)
    return fit_trees(features, labels, np.ones(len(labels)), 5), features


def test_what_was_fitted_is_read_as_it_is(fitted):
    trees, features = fitted
    again = load_trees(trees.model_to_string(), "trees.txt", 3, 3)
    np.testing.assert_array_equal(raw_logits(again, features, 3), raw_logits(trees, features, 3))


def exchanged(pattern, by):
    """Return a function that exchanges the first match in a text."""
    return lambda text: re.sub(rf"(?m)^{pattern}", by, text, count=1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "cut short"),
        (lambda text: "", "no file of trees: it does not say max_feature_idx"),
        (exchanged("max_feature_idx=2", "max_feature_idx=9"), r"is for .* \(10, 3\), expected \(3, 3\)"),
        (exchanged(r"split_feature=\d+", "split_feature=70000"), "a feature that there is not"),
        (exchanged(r"left_child=-?\d+", "left_child=4000"), "do not form a tree"),
        (exchanged(r"(leaf_value=)\S+ ", r"\1"), r"leaf_value holds \d numbers, expected \d finite"),
        (exchanged(r"(leaf_value=)\S+", r"\1nan"), r"leaf_value holds \d numbers, expected \d finite"),
        (exchanged(r"(threshold=)\S+", r"\1x"), "threshold does not hold numbers"),
        (exchanged(r"num_leaves=\d+", "num_leaves=99999999"), "num_leaves is '99999999'"),
    ],
)
def test_damage_is_named_with_its_tree(fitted, damage, words):
    with pytest.raises(IntegrityError, match=words):
        load_trees(damage(fitted[0].model_to_string()), "trees.txt", 3, 3)
