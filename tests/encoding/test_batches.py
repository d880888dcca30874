import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.encoding.batches import plan_batches, restore_order
from lmsys_ensemble.errors import ConfigError, EnsembleError

LENGTHS = st.lists(st.integers(0, 50), max_size=40)


@given(LENGTHS, st.integers(1, 200))
def test_a_plan_holds_every_row_once_and_keeps_to_the_budget(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget or longest == 0


@given(LENGTHS, st.integers(1, 200))
def test_a_plan_goes_from_the_longest_row_to_the_shortest_and_wastes_no_room(lengths, budget):
    batches = plan_batches(lengths, budget)
    in_order = [lengths[row] for batch in batches for row in batch]
    assert in_order == sorted(lengths, reverse=True)
    for batch in batches[:-1]:  # one row more would not have fitted
        assert (len(batch) + 1) * max(lengths[batch[0]], 1) > budget


def test_rows_of_equal_length_stay_in_their_order():
    assert np.concatenate(plan_batches([5, 9, 5, 9, 5], 10)).tolist() == [1, 3, 0, 2, 4]


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_without_room_is_refused(budget):
    with pytest.raises(ConfigError, match=f"at least 1, got {budget}"):
        plan_batches([1], budget)


@given(st.data())
def test_results_of_any_plan_come_back_in_the_order_of_the_rows(data):
    n_rows = data.draw(st.integers(1, 30))
    order = np.array(data.draw(st.permutations(range(n_rows))), dtype=np.intp)
    cuts = sorted(data.draw(st.sets(st.integers(1, n_rows), max_size=5)))
    batches = [batch for batch in np.split(order, cuts) if len(batch)]
    rows = np.arange(3 * n_rows, dtype=np.float32).reshape(n_rows, 3)
    restored = restore_order([rows[batch] for batch in batches], batches, n_rows)
    assert np.array_equal(restored, rows)
    assert restored.dtype == np.float32


@pytest.mark.parametrize(
    ("batches", "sizes", "n_rows"),
    [
        ([[0, 1], [1]], [2, 1], 3),
        ([[0, 1]], [2], 3),
        ([[0, 1], [3]], [2, 1], 3),
        ([[0, 1], [2]], [1, 2], 3),
        ([[0, 1], [2]], [2], 3),
        ([[0, 1], [2]], [2, 2], 3),
        ([], [], 0),
    ],
    ids=["a row twice", "a row missing", "a row unknown", "sizes exchanged", "a part missing", "too many", "nothing"],
)
def test_what_is_no_permutation_of_the_rows_is_never_passed_on(batches, sizes, n_rows):
    parts = [np.zeros((size, 3), dtype=np.float32) for size in sizes]
    with pytest.raises(EnsembleError, match="internal error"):
        restore_order(parts, [np.array(batch, dtype=np.intp) for batch in batches], n_rows)
