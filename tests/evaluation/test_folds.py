import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.evaluation.folds import holdout_split


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
