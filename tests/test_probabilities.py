import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import (
    PROBABILITY_FLOOR,
    check_probabilities,
    log_probabilities,
    log_softmax,
    mark_failed,
    renormalise,
    softmax,
    swap_classes,
)
from lmsys_ensemble.progress import NOT_FINITE
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=4)
LOGITS = arrays(np.float32, SHAPES, elements=st.floats(-1e4, 1e4, width=32))
MASSES = arrays(np.float64, SHAPES, elements=st.floats(1e-3, 1))


@given(LOGITS, st.floats(0.05, 20))
def test_softmax_rows_are_probabilities_that_keep_the_order_of_the_logits(logits, temperature):
    probabilities = softmax(logits, temperature)
    assert probabilities.dtype == np.float64
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(logits)), abs=1e-12)
    assert (probabilities >= 0).all()
    ranked = np.take_along_axis(probabilities, np.argsort(logits, axis=1), axis=1)
    assert (np.diff(ranked, axis=1) >= 0).all()


@given(LOGITS, st.floats(-100, 100), st.floats(0.05, 20))
def test_softmax_ignores_a_constant_and_divides_by_the_temperature(logits, constant, temperature):
    assert softmax(logits.astype(np.float64) + constant) == pytest.approx(softmax(logits), abs=1e-9)
    assert softmax(logits, temperature) == pytest.approx(softmax(logits / np.float64(temperature)), abs=1e-12)


@given(LOGITS)
def test_log_softmax_is_the_logarithm_of_softmax_and_works_on_the_last_axis(logits):
    assert np.exp(log_softmax(logits)) == pytest.approx(softmax(logits), abs=1e-12)
    assert (log_softmax(logits[None, :, None])[0, :, 0] == log_softmax(logits)).all()
    assert np.isfinite(log_softmax([[1e30, 0.0]])).all()


def test_softmax_of_known_values():
    assert softmax([[np.log(2), np.log(3), np.log(5)]]) == pytest.approx(np.array([[0.2, 0.3, 0.5]]))
    assert softmax([[1e30, 0.0]]).tolist() == [[1.0, 0.0]]
    assert softmax(np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("temperature", [1e-310, 5e-324, 1e-30])
def test_a_tiny_temperature_leaves_the_largest_logits_and_no_nan(temperature):
    assert softmax([[3.0, 3.0, -7.0], [1e308, -1e308, 0.0]], temperature).tolist() == [[0.5, 0.5, 0], [1, 0, 0]]


@given(MASSES)
def test_logarithms_of_probabilities_are_logits_of_the_same_probabilities(masses):
    probabilities = renormalise(masses)
    assert softmax(log_probabilities(probabilities)) == pytest.approx(probabilities, abs=1e-12)


def test_the_logarithm_of_zero_is_floored():
    assert log_probabilities([[0.0, 1.0]]).tolist() == [[np.log(PROBABILITY_FLOOR), 0.0]]


@given(MASSES, st.floats(-0.009, 0.009))
def test_what_rounding_did_to_a_sum_is_removed(masses, error):
    probabilities = renormalise(masses)
    checked = check_probabilities((probabilities * (1 + error)).tolist())
    assert checked.dtype == np.float64
    assert checked.sum(axis=1) == pytest.approx(np.ones(len(checked)), abs=1e-12)
    assert checked == pytest.approx(probabilities, abs=1e-9)


@given(MASSES, st.data())
def test_one_faulty_row_is_found_wherever_it_is(masses, data):
    probabilities = renormalise(masses)
    row = data.draw(st.integers(0, len(masses) - 1))
    column = data.draw(st.integers(0, masses.shape[1] - 1))
    fault, words = data.draw(
        st.sampled_from(
            [(np.nan, "not finite"), (np.inf, "not finite"), (-np.inf, "not finite"), (-0.5, "negative"), (2.1, "sum")]
        )
    )
    probabilities[row, column] = fault
    with pytest.raises(InputError, match=rf"m1: 1 of {len(masses)} rows: row {row}, .*{words}"):
        check_probabilities(probabilities, name="m1")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5, 0.5], r"got shape \(2,\)"),
        ([[0.5, 0.5]], "has 2 columns, expected 3"),
        ([[0.2, 0.3, 0.5]] * 2, "has 2 rows, expected 1"),
        ([["a", "b", "c"]], "must be numbers"),
        ([[None, 0.5, 0.5]], "not finite"),
        ([[0.5, 0.5], [1.0]], "must be numbers"),
        ([[0.0, 0.0, 0.0]], "does not sum to 1"),
        ([[3.2, -1.0, 0.5]], "negative"),
        ([[3.2, 1.0, 0.5]], "logits must go through softmax first"),
        ([[np.inf, -np.inf, 1.0]], "not finite"),
        ([[1e308, 1e308, 1e308]], "does not sum to 1"),
        ([[5e-324, 0.0, 0.0]], "does not sum to 1"),
        (np.array([[0.5 + 1j, 0.5, 0.0]]), "complex"),
        (np.ma.array([[0.5, 0.3, 0.2]], mask=[[True, False, False]]), "not finite"),
    ],
)
def test_what_is_no_table_of_probabilities_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        check_probabilities(values, n_classes=3, n_rows=1)


@pytest.mark.parametrize("task", [THREE_WAY, TWO_WAY], ids=lambda task: task.name)
@given(data=st.data())
def test_swapping_classes_swaps_the_first_two_and_twice_is_as_before(task, data):
    values = data.draw(arrays(np.float32, (3, task.n_classes), elements=st.floats(-5, 5, width=32)))
    swapped = swap_classes(values, task)
    assert np.array_equal(swapped[:, :2], values[:, 1::-1])
    assert np.array_equal(swapped[:, 2:], values[:, 2:])
    assert np.array_equal(swap_classes(swapped, task), values)


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf, 1e39])
def test_rows_fail_whose_logits_are_not_finite_as_they_are_kept_and_those_that_were_reported(fault):
    logits = np.arange(12.0).reshape(4, 3)
    logits[1, 2] = logits[2, 0] = fault
    before = logits.copy()
    values, reasons = mark_failed(logits, {3: "too long", 2: "out of memory"})
    assert reasons == {1: NOT_FINITE, 2: "out of memory", 3: "too long"}
    assert values.dtype == np.float32
    assert np.array_equal(values[0], logits[0])
    assert np.isnan(values[1:]).all()
    assert np.array_equal(logits, before, equal_nan=True)  # what the scorer gave is left as it is


def test_no_row_fails_whose_logits_are_finite():
    values, reasons = mark_failed(np.zeros((2, 3), np.float32), {})
    assert (values.tolist(), reasons) == ([[0.0] * 3] * 2, {})
