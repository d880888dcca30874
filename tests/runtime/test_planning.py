"""Which chunks a run scores."""

import numpy as np
import pytest

from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.runtime.items import make_items
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.planning import Planner
from tests.runtime.making import make_battles

LIMIT = 1_000


@pytest.fixture
def items():
    return make_items(make_battles(20), both_passes=True)


def flat(chunks):
    return np.concatenate(chunks).tolist()


def test_original_passes_come_first_and_swapped_ones_in_the_order_of_the_rows(items):
    planner = Planner(items, RunOptions(swap="adaptive"), LIMIT, None, [])
    assert sorted(flat(planner.first())) == sorted(items.original)
    rows = np.array([7, 2, 11])
    (chunk,) = Planner(items, RunOptions(swap="adaptive"), 10**6, None, []).swapped(rows)
    assert chunk.tolist() == sorted(items.swapped_pass[rows])
    chunks = Planner(items, RunOptions(swap="adaptive"), 1, None, []).swapped(rows)
    assert flat(chunks) == items.swapped_pass[rows].tolist()


def test_both_passes_of_a_row_are_in_one_chunk_where_all_are_wanted_and_there_is_time(items):
    chunks = Planner(items, RunOptions(swap="all"), LIMIT, None, []).first()
    assert sorted(flat(chunks)) == list(range(40))
    chunk_of = {item: number for number, chunk in enumerate(chunks) for item in chunk.tolist()}
    assert len(chunks) > 1
    for original, swapped in zip(items.original.tolist(), items.swapped_pass.tolist(), strict=True):
        assert chunk_of[original] == chunk_of[swapped]
    later = Planner(items, RunOptions(swap="all", time_budget_s=60.0), LIMIT, None, []).first()
    assert sorted(flat(later)) == sorted(items.original)


def test_a_swapped_pass_that_is_another_rows_original_one_is_not_scored_again(make_battles):
    items = make_items(make_battles(("q", "yes", "no"), ("q", "no", "yes"), ("q", "a", "b")), both_passes=True)
    planner = Planner(items, RunOptions(swap="adaptive"), LIMIT, None, [])
    assert flat(planner.swapped(np.arange(3))) == [items.swapped_pass[2]]


def test_chunks_of_an_earlier_run_stay_as_they_were_and_new_ones_are_recorded(items, tmp_path):
    with Journal.open(tmp_path / "run", {}) as journal:
        first = Planner(items, RunOptions(), LIMIT, journal, []).first()
        recorded = journal.chunks()
        again = Planner(items, RunOptions(), 10**6, journal, recorded).first()
        assert journal.chunks() == recorded
    assert [chunk.tolist() for chunk in again] == [chunk.tolist() for chunk in first]
    assert recorded == [items.keys_of(chunk) for chunk in first]
