import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score
from sklearn.metrics import log_loss as reference_log_loss

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.evaluation.metrics import (
    accuracy,
    brier_score,
    calibration_slope,
    class_prior,
    expected_calibration_error,
    log_loss,
    log_loss_interval,
    recalibration,
    reliability_table,
    row_brier_scores,
    row_calibration_gaps,
    row_swap_distances,
    row_swap_flips,
)
from lmsys_ensemble.probabilities import log_probabilities, softmax

LABELS = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]])


def drawn(n_rows, seed=0, scale=1.5):
    """Calibrated probabilities with labels drawn from them."""
    generator = np.random.default_rng(seed)
    probabilities = softmax(scale * generator.normal(size=(n_rows, 3)))
    y = (generator.random((n_rows, 1)) > probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return np.eye(3)[y], probabilities


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_log_loss_and_accuracy_are_the_references(seed):
    labels, probabilities = drawn(50, seed)
    y = labels.argmax(axis=1)
    assert log_loss(labels, probabilities) == pytest.approx(reference_log_loss(y, probabilities, labels=[0, 1, 2]))
    assert accuracy(labels, probabilities) == pytest.approx(accuracy_score(y, probabilities.argmax(axis=1)))


def test_brier_score_by_hand():
    expected = [0.09 + 0.04 + 0.01, 0.25 + 0.49 + 0.04, 0.04 + 0.04 + 0.16, 0.01 + 2 * 0.0025]
    assert row_brier_scores(LABELS, PROBABILITIES) == pytest.approx(expected)
    assert brier_score(LABELS, PROBABILITIES) == pytest.approx(np.mean(expected))
    assert brier_score(LABELS, LABELS) == 0
    assert brier_score(LABELS, np.roll(LABELS, 1, axis=1)) == 2


@pytest.mark.parametrize("measure", [log_loss, brier_score])
def test_a_soft_label_is_the_mean_over_its_annotators(measure):
    probabilities = PROBABILITIES[:1]
    soft = measure(np.array([[0.75, 0.25, 0.0]]), probabilities)
    hard = [measure(np.eye(3)[[position]], probabilities) for position in (0, 0, 0, 1)]
    assert soft == pytest.approx(np.mean(hard))


def test_tied_annotators_share_the_credit():
    assert accuracy(np.array([[0.5, 0.5, 0.0]]), PROBABILITIES[:1]) == 0.5


def test_calibration_errors_by_hand():
    # Confidences 0.7, 0.5, 0.6 and 0.9, correct in 1, 0, 1 and 1: four bins of one row each.
    assert expected_calibration_error(LABELS, PROBABILITIES) == pytest.approx((0.3 + 0.5 + 0.4 + 0.1) / 4)
    one_bin = expected_calibration_error(LABELS, PROBABILITIES, n_bins=1)
    assert one_bin == pytest.approx(abs(np.mean([0.7, 0.5, 0.6, 0.9]) - 0.75))
    classwise = expected_calibration_error(LABELS, PROBABILITIES, "classwise", n_bins=1)
    assert classwise == pytest.approx(np.abs(PROBABILITIES.mean(axis=0) - LABELS.mean(axis=0)).mean())


def test_a_probability_of_one_is_in_the_last_bin():
    gaps = row_calibration_gaps(LABELS, LABELS)
    assert gaps.shape == (4, 15)
    assert (gaps == 0).all()
    assert expected_calibration_error(LABELS, np.roll(LABELS, 1, axis=1)) == 1


@pytest.mark.parametrize("kind", ["confidence", "classwise"])
def test_calibration_errors_tell_calibrated_from_over_confident(kind):
    labels, probabilities = drawn(20_000)
    sharp = softmax(2 * log_probabilities(probabilities))
    assert expected_calibration_error(labels, probabilities, kind) < 0.02
    assert expected_calibration_error(labels, sharp, kind) > 0.05


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="confidence"):
        expected_calibration_error(LABELS, PROBABILITIES, "clawise")


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_calibration_slope_is_the_inverse_temperature(slope):
    labels, probabilities = drawn(20_000)
    assert calibration_slope(labels, softmax(log_probabilities(probabilities) / slope)) == pytest.approx(
        slope, rel=0.05
    )


def test_a_wrong_prior_is_bias_and_not_slope():
    labels, probabilities = drawn(20_000)
    bias = np.array([0.5, -0.3, -0.2])
    slope, fitted = recalibration(labels, softmax(log_probabilities(probabilities) - bias))
    assert slope == pytest.approx(1, abs=0.05)
    assert fitted == pytest.approx(bias, abs=0.06)


def test_a_class_that_never_occurs_leaves_the_slope_finite():
    labels, probabilities = drawn(500)
    rows = labels[:, 2] == 0
    assert np.isfinite(calibration_slope(labels[rows], probabilities[rows]))


def test_swap_measures():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    swapped = np.array([[0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.3, 0.2, 0.5]])
    assert row_swap_flips(probabilities, swapped).tolist() == [0, 1, 0]
    assert row_swap_distances(probabilities, swapped) == pytest.approx([0, 0.2, 0])


@given(seed=st.integers(0, 1_000))
@settings(max_examples=20, deadline=None)
def test_a_scorer_that_ignores_order_is_consistent(seed):
    _, probabilities = drawn(20, seed)
    swapped = probabilities[:, [1, 0, 2]]
    assert not row_swap_flips(probabilities, swapped).any()
    assert row_swap_distances(probabilities, swapped) == pytest.approx(np.zeros(20))
    always_first = row_swap_distances(probabilities, probabilities)
    assert always_first == pytest.approx(np.abs(probabilities[:, 0] - probabilities[:, 1]))


def test_reliability_table_matches_the_calibration_error():
    labels, probabilities = drawn(2_000)
    table = reliability_table(labels, probabilities, n_bins=15)
    gap = (table.predicted - table.observed).abs() * table.n_rows
    error = gap.sum() / 2_000 / 3
    assert error == pytest.approx(expected_calibration_error(labels, probabilities, "classwise"))
    assert table.groupby("class").n_rows.sum().tolist() == [2_000] * 3
    assert (table.n_rows > 0).all()
    assert table.predicted.between(table.bin / 15, (table.bin + 1) / 15).all()


def test_class_prior():
    assert class_prior(LABELS, 2).tolist() == [[0.5, 0.25, 0.25]] * 2


def test_log_loss_interval():
    labels, probabilities = drawn(400)
    low, high = log_loss_interval(labels, probabilities)
    assert low < log_loss(labels, probabilities) < high
    grouped = log_loss_interval(labels, probabilities, np.arange(400) // 20)
    assert grouped[0] < log_loss(labels, probabilities) < grouped[1]
    repeated = log_loss_interval(
        np.repeat(labels, 4, axis=0), np.repeat(probabilities, 4, axis=0), np.repeat(np.arange(400), 4)
    )
    assert repeated == pytest.approx((low, high))


@pytest.mark.parametrize("measure", [expected_calibration_error, reliability_table])
def test_no_bins_are_refused(measure):
    uniform = np.full((4, 3), 1 / 3)
    with pytest.raises(ConfigError, match="n_bins must be at least 1, got 0"):
        measure(uniform, uniform, n_bins=0)
