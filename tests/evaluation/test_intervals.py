from dataclasses import astuple

import numpy as np
import pytest

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.evaluation import intervals
from lmsys_ensemble.evaluation.intervals import (
    bootstrap_sums,
    paired_difference,
    paired_differences,
    standard_error,
    sums_by_group,
)


def test_sums_by_group():
    values = np.array([[1.0, 10], [2, 20], [4, 40]])
    assert sums_by_group(values, np.array([0, 1, 0])).tolist() == [[5, 50], [2, 20]]
    # Groups of one row each need not come in order.
    assert sorted(sums_by_group(values, np.array([2, 0, 1]))[:, 0]) == [1, 2, 4]


def test_bootstrap_sums_draw_whole_groups():
    draws = bootstrap_sums(np.array([[1.0, 2.0], [10.0, 20.0]]), 200, seed=1)
    assert set(draws[:, 0]) == {2.0, 11.0, 20.0}
    assert np.array_equal(draws[:, 1], 2 * draws[:, 0])
    assert np.array_equal(draws, bootstrap_sums(np.array([[1.0, 2.0], [10.0, 20.0]]), 200, seed=1))


def test_blocks_of_draws_change_nothing(monkeypatch):
    sums = np.random.default_rng(0).normal(size=(30, 2))
    whole = bootstrap_sums(sums, 50)
    monkeypatch.setattr(intervals, "_BLOCK", 100)
    assert np.allclose(bootstrap_sums(sums, 50), whole)


def test_merging_groups_keeps_total_and_spread(monkeypatch):
    sums = np.random.default_rng(0).normal(size=(4_000, 1)) + 1
    exact = bootstrap_sums(sums, 2_000)
    monkeypatch.setattr(intervals, "MAX_GROUPS", 500)
    merged = bootstrap_sums(sums, 2_000)
    assert merged.mean() == pytest.approx(exact.mean(), rel=0.01)
    assert merged.std() == pytest.approx(exact.std(), rel=0.15)


def test_standard_error_of_independent_rows():
    values = np.random.default_rng(0).normal(size=500)
    assert standard_error(values) == pytest.approx(values.std(ddof=1) / np.sqrt(500))


def test_repeating_rows_within_groups_does_not_lower_the_error():
    values = np.random.default_rng(0).normal(size=100)
    repeated, codes = np.repeat(values, 5), np.repeat(np.arange(100), 5)
    assert standard_error(repeated, codes=codes) == pytest.approx(standard_error(values))
    assert standard_error(repeated) < 0.6 * standard_error(values)


def test_standard_error_with_weights():
    values, weights = np.array([1.0, 2.0, 3.0, 100.0]), np.array([1.0, 1.0, 1.0, 0.0])
    assert standard_error(values, weights) == pytest.approx(standard_error(values[:3]), rel=0.1)
    assert np.isnan(standard_error(np.ones(3), codes=np.zeros(3, dtype=np.intp)))


def test_a_paired_difference_is_surer_than_its_parts():
    generator = np.random.default_rng(0)
    second = generator.exponential(size=1_000)
    first = second - 0.01 + 0.02 * generator.normal(size=1_000)
    difference = paired_difference(first, second)
    assert difference.mean == pytest.approx((first - second).mean())
    assert difference.low < difference.mean < difference.high < 0
    assert difference.standard_error < standard_error(first) / 20
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * difference.standard_error, rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = np.repeat(generator.normal(size=60), 3)
        difference = paired_difference(values, np.zeros(180), np.repeat(np.arange(60), 3), n_bootstrap=300)
        covered += difference.low <= 0 <= difference.high
    assert 0.88 <= covered / 200 <= 0.99


def test_several_differences_share_the_draws():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(200, 3)), generator.normal(size=200)
    together = paired_differences(first, second, seed=4)
    alone = paired_difference(first[:, 1], second, seed=4)
    assert astuple(together[1]) == pytest.approx(astuple(alone), abs=1e-12)
    assert paired_differences(first, first[:, 0])[0].high == 0


def test_weights_of_zero_take_no_part():
    first, weights = np.array([1.0, 2.0, 50.0]), np.array([1.0, 1.0, 0.0])
    (difference,) = paired_differences(first[:, None], np.zeros(3), weights=weights)
    assert difference.mean == 1.5
    assert (difference.low, difference.high) == (1, 2)


def test_groups_must_match():
    with pytest.raises(InputError, match="one per row"):
        paired_difference(np.zeros(3), np.zeros(3), [1, 2])
