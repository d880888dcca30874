import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.evaluate import evaluate
from lmsys_ensemble.evaluation.metrics import (
    accuracy,
    brier_score,
    calibration_slope,
    expected_calibration_error,
    log_loss,
    log_loss_interval,
)
from lmsys_ensemble.probabilities import log_probabilities, softmax

from .test_metrics import drawn


def values(table):
    return table[table.by == ""].set_index("metric")["value"]


def test_every_measure_is_that_of_its_function():
    labels, probabilities = drawn(500)
    sharp = softmax(1.5 * log_probabilities(probabilities))
    table = evaluate(labels, sharp, swapped=sharp[:, [1, 0, 2]], n_bootstrap=50)
    expected = {
        "log_loss": log_loss(labels, sharp),
        "accuracy": accuracy(labels, sharp),
        "brier_score": brier_score(labels, sharp),
        "ece_confidence": expected_calibration_error(labels, sharp),
        "ece_classwise": expected_calibration_error(labels, sharp, "classwise"),
        "calibration_slope": calibration_slope(labels, sharp),
        "swap_flip_rate": 0.0,
        "swap_total_variation": 0.0,
    }
    assert table.metric.tolist() == list(expected)
    assert values(table).to_dict() == pytest.approx(expected, abs=1e-6)


@given(seed=st.integers(0, 1_000))
@settings(max_examples=15, deadline=None)
def test_intervals_hold_their_values(seed):
    labels, probabilities = drawn(200, seed)
    table = evaluate(labels, probabilities, np.arange(200) // 2, swapped=probabilities, n_bootstrap=200)
    assert (table.low <= table.value + 1e-9).all()
    assert (table.value <= table.high + 1e-9).all()
    assert (table.low[table.metric.str.startswith("ece")] >= 0).all()
    assert (table.n_groups == 100).all()


def test_the_interval_of_the_log_loss_is_that_of_its_function():
    labels, probabilities = drawn(300)
    groups = [f"prompt {row // 3}" for row in range(300)]
    row = evaluate(labels, probabilities, groups, seed=5).set_index("metric").loc["log_loss"]
    assert (row.low, row.high) == pytest.approx(log_loss_interval(labels, probabilities, np.array(groups), seed=5))


def test_one_newton_step_is_as_good_as_refitting_the_slope():
    labels, probabilities = drawn(1_500)
    row = evaluate(labels, probabilities).set_index("metric").loc["calibration_slope"]
    generator = np.random.default_rng(1)
    slopes = []
    for _ in range(200):
        picked = generator.integers(0, 1_500, 1_500)
        slopes.append(calibration_slope(labels[picked], probabilities[picked]))
    assert row.high - row.low == pytest.approx(2 * 1.96 * np.std(slopes), rel=0.2)


def test_the_slope_of_the_truth_is_one_within_its_interval():
    covered = 0
    for seed in range(40):
        row = evaluate(*drawn(300, seed), n_bootstrap=200).set_index("metric").loc["calibration_slope"]
        covered += row.low <= 1 <= row.high
    assert covered >= 33


def test_slices_are_evaluations_of_their_rows():
    labels, probabilities = drawn(120)
    by = pd.DataFrame({"source": ["x", "y", None] * 40, "turns": np.repeat([1, 2], 60)}, index=range(500, 620))
    table = evaluate(labels, probabilities, np.arange(120) // 2, by=by, n_bootstrap=50)
    assert table[["by", "slice"]].drop_duplicates().to_numpy().tolist() == [
        ["", "all"], ["source", "x"], ["source", "y"], ["source", "missing"], ["turns", "1"], ["turns", "2"],
    ]  # fmt: skip
    part = table[(table.by == "turns") & (table.slice == "2")].reset_index(drop=True)
    alone = evaluate(labels[60:], probabilities[60:], np.arange(60, 120) // 2, n_bootstrap=50)
    pd.testing.assert_frame_equal(part.drop(columns=["by", "slice"]), alone.drop(columns=["by", "slice"]))
    assert part.n_rows.unique().tolist() == [60]


def test_a_series_is_sliced_by_its_name():
    labels, probabilities = drawn(20)
    for by, name in ((pd.Series(["x"] * 20, name="source"), "source"), (["x"] * 20, "slice")):
        assert set(evaluate(labels, probabilities, by=by, n_bootstrap=10).by) == {"", name}


def test_positions_soft_labels_and_two_classes():
    labels, probabilities = drawn(60)
    by_position = evaluate(labels.argmax(axis=1), probabilities, n_bootstrap=20)
    pd.testing.assert_frame_equal(by_position, evaluate(labels, probabilities, n_bootstrap=20))
    two = np.array([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]])
    table = evaluate([0, 1, 0], two, swapped=two[:, ::-1], n_bootstrap=20)
    assert values(table)["swap_flip_rate"] == 0
    assert values(evaluate([[0.5, 0.5]] * 3, two, n_bootstrap=20))["accuracy"] == 0.5


def test_one_group_has_no_interval():
    labels, probabilities = drawn(10)
    table = evaluate(labels, probabilities, ["same"] * 10)
    assert table[["low", "high"]].isna().all().all()
    assert np.isfinite(table.value).all()
    assert np.isfinite(evaluate(labels[:1], probabilities[:1]).value).all()


def test_the_same_seed_gives_the_same_table():
    labels, probabilities = drawn(50)
    pd.testing.assert_frame_equal(evaluate(labels, probabilities, seed=3), evaluate(labels, probabilities, seed=3))
    assert not evaluate(labels, probabilities, seed=3).equals(evaluate(labels, probabilities, seed=4))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [0]}, "labels"),
        ({"labels": [0, 5]}, "no class"),
        ({"probabilities": [[0.5, 0.6, 0.7]] * 2}, "sum to 1"),
        ({"probabilities": np.empty((0, 3)), "labels": []}, "no rows"),
        ({"swapped": [[0.5, 0.5]] * 2}, "swapped"),
        ({"groups": ["a"]}, "one per row"),
        ({"by": ["a"]}, "one per row"),
    ],
)
def test_bad_input_is_refused(change, words):
    good = {"labels": [0, 1], "probabilities": [[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]]}
    with pytest.raises(InputError, match=words):
        evaluate(**{**good, **change})


def test_no_resamples_are_refused():
    with pytest.raises(ConfigError, match="n_bootstrap must be at least 1, got 0"):
        evaluate([0, 1], [[0.5, 0.5], [0.2, 0.8]], n_bootstrap=0)
