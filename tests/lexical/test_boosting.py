"""Boosted trees."""

import sys

import numpy as np
import pytest

from lmsys_ensemble.errors import MissingDependencyError
from lmsys_ensemble.lexical.boosting import ROUNDS, choose_rounds, fit_trees, gains, import_lightgbm, raw_logits
from lmsys_ensemble.lexical.features import Features, swap_features
from lmsys_ensemble.probabilities import softmax


def make(n_classes, n_rows=400):
    generator = np.random.default_rng(0)
    features = Features(generator.normal(size=(n_rows, 2)), generator.normal(size=(n_rows, 1)), ("a", "b"), ("c",))
    classes = (features.differences[:, 0] < 0).astype(int)
    if n_classes == 3:
        classes[features.shared[:, 0] > 1] = 2
    return features, np.eye(n_classes)[classes]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_trees_learn_swap_exactly_and_are_the_same_again(n_classes):
    pytest.importorskip("lightgbm", reason="boosted trees need an optional package")
    features, labels = make(n_classes)
    trees, again = (fit_trees(features, labels, np.ones(len(labels)), 30) for _ in range(2))
    logits = raw_logits(trees, features, n_classes)
    np.testing.assert_array_equal(raw_logits(again, features, n_classes), logits)
    swapped = raw_logits(trees, swap_features(features), n_classes)
    np.testing.assert_array_equal(swapped[:, [1, 0, *range(2, n_classes)]], logits)
    assert (softmax(logits).argmax(axis=1) == labels.argmax(axis=1)).mean() > 0.85
    assert gains(trees).argmax() == 0
    assert gains(trees).sum() == pytest.approx(1)


def test_rounds_are_few_for_noise_and_many_for_what_can_be_told():
    pytest.importorskip("lightgbm", reason="boosted trees need an optional package")
    features, labels = make(2)
    folds, weights = np.arange(len(labels)) % 2, np.ones(len(labels))
    assert choose_rounds(features, labels, weights, folds) > ROUNDS[0]
    noise = np.random.default_rng(1).permutation(labels)
    assert choose_rounds(features, noise, weights, folds) == ROUNDS[0]


def test_without_lightgbm_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingDependencyError, match=r"lmsys-ensemble\[lexical\]"):
        import_lightgbm()
