import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.evaluation.folds import group_codes, group_folds, holdout_split, make_folds


@given(
    st.lists(st.integers(0, 12) | st.text("ab", max_size=2), max_size=40), st.floats(0.001, 0.999), st.integers(0, 9)
)
def test_a_holdout_takes_every_row_once_and_divides_no_group(groups, share, seed):
    n_groups = len({str(group) for group in groups})
    if np.ceil(share * n_groups) >= n_groups:
        with pytest.raises(InputError, match="cannot hold out"):
            holdout_split(groups, share, seed)
        return
    learn, hold = holdout_split(groups, share, seed)
    assert sorted([*learn, *hold]) == list(range(len(groups)))
    assert (np.diff(learn) > 0).all()
    assert (np.diff(hold) > 0).all()
    held = {groups[row] for row in hold}
    assert held.isdisjoint(groups[row] for row in learn)
    assert len({str(group) for group in held}) == np.ceil(share * n_groups)
    again = holdout_split(groups, share, seed)
    assert np.array_equal(again[0], learn)
    assert np.array_equal(again[1], hold)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(InputError, match="0 < share < 1"):
        holdout_split(list("abcd"), share)


def test_another_seed_is_another_split():
    holds = [holdout_split(range(100), 0.2, seed)[1].tolist() for seed in (0, 1)]
    assert holds[0] != holds[1]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(2, 6), st.integers(0, 9), st.integers(0, 3))
def test_folds_divide_no_group_and_none_is_empty(groups, n_splits, seed, n_classes):
    labels = np.random.default_rng(0).dirichlet(np.ones(n_classes), len(groups)) if n_classes else None
    if len(set(groups)) < n_splits:
        with pytest.raises(InputError, match="fewer folds, or give more prompts"):
            make_folds(groups, n_splits, seed, labels)
        return
    folds = make_folds(groups, n_splits, seed, labels)
    assert set(folds.tolist()) == set(range(n_splits))
    assert len(set(zip(groups, folds.tolist(), strict=True))) == len(set(groups))
    np.testing.assert_array_equal(make_folds(groups, n_splits, seed, labels), folds)


def test_folds_are_balanced_in_rows_and_labels():
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 400, 2000)
    labels = np.eye(3)[generator.choice(3, 2000, p=[0.5, 0.45, 0.05])]
    folds = make_folds(groups, 5, 3, labels)
    assert np.ptp(np.bincount(folds)) <= 20
    shares = np.array([labels[folds == fold].mean(axis=0) for fold in range(5)])
    dealt = group_folds(group_codes(groups, 2000), 5, 3)
    by_chance = np.array([labels[dealt == fold].mean(axis=0) for fold in range(5)])
    assert np.ptp(shares, axis=0).max() < 0.02 < np.ptp(by_chance, axis=0).max()
    assert not np.array_equal(folds, make_folds(groups, 5, 4, labels))


def test_without_groups_rows_are_dealt_and_without_both_there_is_nothing_to_deal():
    folds = make_folds(None, 3, labels=np.eye(3)[[0, 0, 0, 1, 1, 1]])
    assert sorted(folds[:3]) == sorted(folds[3:]) == [0, 1, 2]
    with pytest.raises(InputError, match="got neither"):
        make_folds(None, 3)
    with pytest.raises(InputError, match="groups has 2 entries for 3 rows"):
        make_folds(["a", "b"], 2, labels=np.eye(3))
    with pytest.raises(InputError, match=r"1 of 3 are missing, first in row 1"):
        make_folds(["a", None, "b"], 2)
