import numpy as np
import pytest
from scipy.special import log_softmax

from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.training.head import fit_head


def draw(n_rows=400, n_features=5, n_classes=3, seed=0):
    """Return inputs of very different scales, true coefficients, and the probabilities they give."""
    generator = np.random.default_rng(seed)
    scales = 10.0 ** np.arange(-2, n_features - 2)
    inputs = (generator.normal(size=(n_rows, n_features)) + generator.normal(size=n_features)) * scales
    weight = generator.normal(size=(n_classes, n_features)) / scales
    bias = generator.normal(size=n_classes)
    return inputs, weight, bias, softmax(inputs @ weight.T + bias)


def objective(inputs, labels, row_weights, l2, weight, bias):
    """State the loss as it is documented, row by row."""
    scale = inputs.std(axis=0)
    total = sum(
        row_weight * -(label @ log_softmax(weight @ row + bias))
        for row, label, row_weight in zip(inputs, labels, row_weights, strict=True)
    )
    return total / row_weights.sum() + l2 * ((weight * scale) ** 2).sum()


def numeric_gradient(function, point, step=1e-5):
    gradient = np.empty(point.size)
    for position in range(point.size):
        shift = np.zeros(point.size)
        shift[position] = step
        up, down = (function(point + sign * shift.reshape(point.shape)) for sign in (1, -1))
        gradient[position] = (up - down) / (2 * step)
    return gradient


def test_a_known_regression_is_recovered_from_its_probabilities():
    inputs, weight, _, labels = draw()
    found_weight, found_bias = fit_head(inputs, labels, np.ones(len(inputs)), 1e-9)
    np.testing.assert_allclose(softmax(inputs @ found_weight.T + found_bias), labels, atol=2e-3)
    scale = inputs.std(axis=0)
    true, found = ((each - each.mean(axis=0)) * scale for each in (weight, found_weight))
    np.testing.assert_allclose(found, true, atol=0.02)


@pytest.mark.parametrize("l2", [1e-3, 0.3])
def test_the_fit_is_a_minimum_of_the_documented_loss(l2):
    """At the minimum a numeric gradient in every coefficient vanishes, and it does not a step beside it."""
    inputs, _, _, probabilities = draw(n_rows=80, n_features=3)
    generator = np.random.default_rng(1)
    labels = np.where(generator.random((80, 1)) < 0.5, probabilities, np.eye(3)[generator.integers(0, 3, 80)])
    row_weights = generator.uniform(0.1, 5, 80)
    weight, bias = fit_head(inputs, labels, row_weights, l2)
    scale = inputs.std(axis=0)

    def loss(point):
        return objective(inputs, labels, row_weights, l2, point[:, :-1] / scale, point[:, -1])

    point = np.column_stack([weight * scale, bias])
    assert np.abs(numeric_gradient(loss, point)).max() < 2e-4
    assert np.abs(numeric_gradient(loss, point + 0.1 * generator.normal(size=point.shape))).max() > 5e-3


def test_a_weight_of_two_is_a_row_that_comes_twice():
    inputs, _, _, labels = draw(n_rows=60)
    row_weights = np.where(np.arange(60) < 20, 2.0, 1.0)
    twice = np.concatenate([np.arange(60), np.arange(20)])
    scale = inputs.std(axis=0)
    # Same standardisation for both, so that the penalty is the same.
    inputs = np.concatenate([inputs, -inputs + 2 * inputs.mean(axis=0)]) / scale
    labels = np.concatenate([labels, labels])
    once, double = np.tile(row_weights, 2), np.concatenate([twice, twice + 60])
    assert len(double) == once.sum()
    weight, _ = fit_head(inputs, labels, once, 1e-6)
    repeated, _ = fit_head(inputs[double], labels[double], np.ones(len(double)), 1e-6)
    np.testing.assert_allclose(weight, repeated, atol=1e-2)


def test_without_a_bias_there_is_none_and_the_fit_is_still_the_minimum():
    inputs, _, _, labels = draw(n_rows=80, n_features=3)
    weight, bias = fit_head(inputs, labels, np.ones(80), 0.1, with_bias=False)
    assert not bias.any()
    scale = np.sqrt(np.square(inputs).mean(axis=0))

    def loss(point):
        scores = log_softmax(inputs @ (point / scale).T, axis=1)
        return -(labels * scores).sum(axis=1).mean() + 0.1 * np.square(point).sum()

    assert np.abs(numeric_gradient(loss, weight * scale)).max() < 1e-4


def test_an_input_that_never_changes_does_no_harm():
    inputs, _, _, labels = draw(n_rows=80)
    with_constant = np.column_stack([inputs, np.full(80, 7.0)])
    weight, bias = fit_head(with_constant, labels, np.ones(80), 0.01)
    plain, plain_bias = fit_head(inputs, labels, np.ones(80), 0.01)
    np.testing.assert_allclose(
        softmax(with_constant @ weight.T + bias), softmax(inputs @ plain.T + plain_bias), atol=1e-3
    )
