import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ensemble.blending.blend import apply_temperature
from lmsys_ensemble.blending.temperature import MIN_INVERSE_TEMPERATURE, fit_temperature, tie_swapped
from lmsys_ensemble.evaluation.metrics import log_loss
from lmsys_ensemble.probabilities import check_labels, log_probabilities, renormalise, softmax

from .conftest import draw_labels, simulate


def calibrated(n_rows, seed=0):
    """Probabilities from which the labels are drawn: nothing beats them."""
    (probabilities,), _ = simulate(n_rows, 1, noise=0.0, seed=seed)
    return probabilities, check_labels(draw_labels(probabilities, seed), n_classes=3)


@pytest.mark.parametrize("true", [0.3, 0.7, 1.0, 1.4, 3.0])
def test_a_known_temperature_comes_back(true):
    probabilities, labels = calibrated(20_000)
    temperature, bias = fit_temperature(apply_temperature(probabilities, 1 / true), labels)
    assert temperature == pytest.approx(true, rel=0.04)
    assert bias is None


def test_known_biases_come_back():
    true = np.array([0.4, -0.5, 0.1])
    (probabilities,), _ = simulate(40_000, 1)
    shifted = softmax(log_probabilities(probabilities) / 1.7 + true)
    labels = check_labels(draw_labels(shifted, 3), n_classes=3)
    temperature, bias = fit_temperature(probabilities, labels, bias=True)
    assert temperature == pytest.approx(1.7, rel=0.04)
    assert bias == pytest.approx(true, abs=0.04)
    assert bias.sum() == pytest.approx(0, abs=1e-12)
    unchanged, alone = fit_temperature(apply_temperature(probabilities, 1.7), labels, scale=False, bias=True)
    assert unchanged == 1
    assert alone == pytest.approx(true, abs=0.04)


@given(shift=st.floats(-0.0009, 0.0009), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_a_row_whose_sum_misses_one_does_not_turn_into_logits(shift, seed):
    # scikit-learn's temperature scaling takes its input for logits when one row's sum is off.
    probabilities, labels = calibrated(500, seed)
    hot = apply_temperature(probabilities, 1 / 3)
    rounded = hot.copy()
    rounded[0] *= 1 + shift
    assert fit_temperature(renormalise(rounded), labels)[0] == pytest.approx(fit_temperature(hot, labels)[0], rel=1e-9)


def test_the_fitted_temperature_is_the_best():
    probabilities, labels = calibrated(3_000)
    hot = apply_temperature(probabilities, 0.5)
    temperature, _ = fit_temperature(hot, labels, l2=0)
    losses = [log_loss(labels, apply_temperature(hot, temperature * factor)) for factor in (0.999, 1, 1.001)]
    assert losses[1] < min(losses[0], losses[2])


def test_soft_labels_and_weights_count_as_repeated_rows():
    probabilities, labels = calibrated(300)
    hot, other = apply_temperature(probabilities, 0.5), np.roll(labels, 1, axis=1)
    soft = fit_temperature(hot, (2 * labels + other) / 3, np.full(300, 3.0), bias=True)
    repeated = fit_temperature(np.vstack([hot] * 3), np.vstack([labels, labels, other]), bias=True)
    assert soft[0] == pytest.approx(repeated[0], rel=1e-9)
    assert soft[1] == pytest.approx(repeated[1], abs=1e-9)


def test_a_scorer_that_is_always_wrong_ends_at_the_highest_temperature():
    probabilities, labels = calibrated(2_000)
    temperature, _ = fit_temperature(np.roll(apply_temperature(probabilities, 0.3), 1, axis=1), labels)
    assert temperature == pytest.approx(1 / MIN_INVERSE_TEMPERATURE)


def test_a_scorer_without_opinion_keeps_its_temperature():
    _, labels = calibrated(200)
    assert fit_temperature(np.full((200, 3), 1 / 3), labels)[0] == pytest.approx(1)


def test_perfect_predictions_stay_finite():
    labels = np.eye(3)[np.arange(30) % 3]
    temperature, bias = fit_temperature(labels, labels, bias=True)
    assert np.isfinite([temperature, *bias]).all()
    assert temperature > 0


def test_two_responses_can_share_a_bias():
    probabilities, labels = calibrated(2_000)
    _, bias = fit_temperature(probabilities, labels, bias=True, swap_equivariant=True)
    assert bias[0] == pytest.approx(bias[1], abs=1e-12)
    assert bias[2] == pytest.approx(-2 * bias[0], abs=1e-12)


def test_tied_parameters_of_a_three_class_matrix():
    basis = np.eye(12).reshape(12, 4, 3)
    tied = tie_swapped(basis)
    # A 3 x 3 matrix has 9 entries, of which a swap of two classes leaves 5 free; of 3 biases, 2.
    assert len(tied) == 7
    assert (tied.sum(axis=0) == 1).all()
