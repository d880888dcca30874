import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.evaluation.folds import group_codes, group_folds
from lmsys_ensemble.probabilities import check_labels, swap_order
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY


def test_the_swap_order_is_that_of_the_tasks():
    for task in (TWO_WAY, THREE_WAY):
        assert swap_order(task.n_classes) == task.swap_order


def test_positions_become_one_hot():
    for labels in ([0, 2], np.array([0.0, 2.0]), pd.Series([0, 2], dtype="Int64")):
        assert check_labels(labels, n_classes=3).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_soft_labels_are_renormalised():
    assert check_labels([[0.6666, 0.3333, 0.0]], n_classes=3).sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    "labels", [[3], [-1], [0.5], [np.nan], ["a"], [None], [[0.5, 0.5]], [[0.5, 0.1, 0.1]], [[[1.0, 0, 0]]], 1]
)
def test_what_is_no_label_is_refused(labels):
    with pytest.raises(InputError):
        check_labels(labels, n_classes=3)


def test_the_number_of_rows_is_checked():
    for labels in ([0], [[1.0, 0, 0]]):
        with pytest.raises(InputError):
            check_labels(labels, n_classes=3, n_rows=2)


def test_group_codes_count_from_the_first_row():
    assert group_codes(["b", "a", "b"], 3).tolist() == [0, 1, 0]
    assert group_codes(None, 3).tolist() == [0, 1, 2]
    # An int and its text are two groups, as they are two ids.
    assert group_codes([1, "1", 1], 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize("groups", [["a"], [None, "a"], [np.nan, 1.0]])
def test_bad_groups_are_refused(groups):
    with pytest.raises(InputError):
        group_codes(groups, 2)


@given(st.lists(st.integers(0, 9), min_size=20, max_size=60), st.integers(2, 5), st.integers(0, 9))
def test_folds_keep_groups_together_and_are_of_nearly_equal_size(groups, n_folds, seed):
    codes = group_codes(groups, len(groups))
    n_groups = codes.max() + 1
    if n_groups < n_folds:
        with pytest.raises(InputError):
            group_folds(codes, n_folds, seed)
        return
    folds = group_folds(codes, n_folds, seed)
    assert np.array_equal(folds, group_folds(codes, n_folds, seed))
    per_group = [set(folds[codes == code]) for code in range(n_groups)]
    assert all(len(fold) == 1 for fold in per_group)
    sizes = np.bincount([fold.pop() for fold in per_group], minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("n_folds", [0, 1])
def test_fewer_than_two_folds_are_refused(n_folds):
    with pytest.raises(InputError):
        group_folds(np.arange(5), n_folds)
