"""The regression that cannot prefer a place."""

import numpy as np
import pytest

from lmsys_ensemble.evaluation.regression import fit_softmax
from lmsys_ensemble.lexical import logistic
from lmsys_ensemble.lexical.features import Features, swap_features
from lmsys_ensemble.lexical.logistic import choose_penalty, fit_logistic, shares_of

N = 200


def make(n_classes, seed=0, n_differences=3, n_shared=4):
    generator = np.random.default_rng(seed)
    features = Features(
        generator.normal(size=(N, n_differences)), generator.normal(1, 2, size=(N, n_shared)),
        tuple("abc"[:n_differences]), tuple("defg"[:n_shared]),
    )  # fmt: skip
    return features, generator.dirichlet(np.ones(n_classes), N), generator.uniform(0.5, 2, N)


def test_it_is_the_penalised_maximum_of_the_general_regression():
    features, labels, weights = make(3)
    found = fit_logistic(features, labels, weights, 5.0)
    inputs = np.hstack([
        features.differences / found.difference_scales, (features.shared - found.shared_means) / found.shared_scales,
    ])  # fmt: skip
    inputs = np.clip(inputs, -logistic.MAX_DEVIATIONS, logistic.MAX_DEVIATIONS)
    tie = np.average(labels[:, 2], weights=weights)
    prior, basis = np.zeros((8, 3)), np.zeros((8, 8, 3))
    prior[-1, 2] = np.log(2 * tie / (1 - tie))
    basis[[0, 1, 2], [0, 1, 2], 0], basis[[0, 1, 2], [0, 1, 2], 1] = 1, -1
    basis[range(3, 8), range(3, 8), 2] = 1
    matrix = fit_softmax(inputs, labels, prior, basis, sample_weight=weights, l2=5.0)
    np.testing.assert_allclose(found.difference_weights, matrix[:3, 0], atol=1e-9)
    np.testing.assert_allclose(found.shared_weights, matrix[3:-1, 2], atol=1e-9)
    assert found.tie_bias == pytest.approx(matrix[-1, 2])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_swapped_responses_swap_the_logits_to_the_last_bit(n_classes):
    features, labels, weights = make(n_classes)
    fitted = fit_logistic(features, labels, weights, 5.0)
    logits, swapped = fitted.logits(features), fitted.logits(swap_features(features))
    np.testing.assert_array_equal(swapped[:, [1, 0, *range(2, n_classes)]], logits)
    assert np.ptp(logits[:, 0]) > 0.1
    assert shares_of(fitted).sum() == pytest.approx(1)


def test_a_weight_is_the_same_as_repeated_rows_and_what_never_varies_counts_nothing():
    features, labels, _ = make(3)
    features.shared[:, 0] = 7
    often = np.repeat(np.arange(N), 1 + np.arange(N) % 2)
    one = fit_logistic(features, labels, 1.0 + np.arange(N) % 2, 5.0)
    np.testing.assert_array_equal(one.shared_weights[0], 0)
    constant = Features(features.differences * 0, features.shared[:, :0], features.difference_names, ())
    other = fit_logistic(constant.take(often), labels[often], np.ones(len(often)), 5.0)
    weighted = fit_logistic(constant, labels, 1.0 + np.arange(N) % 2, 5.0)
    assert weighted.tie_bias == pytest.approx(other.tie_bias)


def test_the_penalty_is_large_for_noise_and_small_for_what_can_be_told(monkeypatch):
    features, noise, weights = make(2)
    folds = np.arange(N) % 4
    assert choose_penalty(features, noise, weights, folds) >= 100
    told = np.eye(2)[(features.differences[:, 0] < 0).astype(int)]
    assert choose_penalty(features, told, weights, folds) == logistic.PENALTIES[0]
    monkeypatch.setattr(logistic, "MAX_ROWS", 80)
    assert choose_penalty(features, told, weights, folds) == logistic.PENALTIES[0]
