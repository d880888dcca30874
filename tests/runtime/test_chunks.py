"""What waits and what it costs, after any sequence of operations."""

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.hosting.budget import PROBE_ROWS
from lmsys_ensemble.runtime.chunks import ChunkQueue
from lmsys_ensemble.runtime.items import cut, make_items

LIMIT = 500


@pytest.fixture(scope="module")
def items():
    lengths = np.random.default_rng(0).lognormal(4, 1, 200).astype(int)
    prompts = [(f"{row} " + "x" * length,) for row, length in enumerate(lengths)]
    return make_items(Battles(pd.RangeIndex(200), prompts, [("a",)] * 200, [("b",)] * 200))


def filled(items):
    queue = ChunkQueue(items)
    for chunk in cut(items, np.arange(len(items)), LIMIT):
        queue.enqueue(chunk)
    return queue


def flat(chunks):
    return [int(item) for chunk in chunks for item in chunk]


def check(queue, items):
    chunks = queue.chunks
    assert queue.cost_waiting == sum(items.cost(chunk) for chunk in chunks)
    assert (len(queue), queue.n_rows) == (len(chunks), sum(map(len, chunks)))
    assert all(len(chunk) for chunk in chunks)


@pytest.mark.parametrize("seed", range(40))
def test_the_cost_is_that_of_the_chunks_whatever_was_done_and_no_row_is_waiting_twice(items, seed):
    random = np.random.default_rng(seed)
    queue, left = ChunkQueue(items), cut(items, random.permutation(len(items)), int(random.integers(50, 2_000)))
    out = set()
    operations = ["enqueue", "enqueue", "take", "take_probe", "take_what_fits", "reorder", "drop"]
    for _ in range(120):
        before = set(flat(queue.chunks))
        operation = random.choice(operations, p=[0.2, 0.2, 0.15, 0.15, 0.15, 0.14, 0.01])
        taken = None
        if operation == "enqueue" and left:
            queue.enqueue(left.pop())
        elif operation in ("take", "take_probe") and len(queue):
            taken = getattr(queue, operation)()
        elif operation == "take_what_fits":
            taken = queue.take_what_fits(0.01, float(random.uniform(0, 20)))
        elif operation == "reorder":
            margin = np.where(random.random(len(items)) < 0.3, np.nan, random.random(len(items)))
            queue.reorder(margin, int(random.integers(50, 2_000)))
            assert set(flat(queue.chunks)) == before
        elif operation == "drop":
            queue.drop()
            assert queue.chunks == []
        check(queue, items)
        waiting = flat(queue.chunks)
        assert len(waiting) == len(set(waiting))
        if taken is not None:
            assert set(taken.tolist()) <= before - set(waiting) - out
            out |= set(taken.tolist())


def test_chunks_are_taken_as_they_were_put_in(items):
    chunks, queue = cut(items, np.arange(len(items)), LIMIT), filled(items)
    taken = [queue.take() for _ in chunks]
    assert flat(taken) == flat(chunks)
    assert [len(chunk) for chunk in taken] == [len(chunk) for chunk in chunks]
    assert (len(queue), queue.cost_waiting) == (0, 0)


def test_a_probe_is_a_few_of_the_shortest_rows(items):
    queue = filled(items)
    assert queue.take_probe().tolist() == list(range(len(items) - PROBE_ROWS, len(items)))
    assert flat(queue.chunks) == list(range(len(items) - PROBE_ROWS))


def test_rows_that_cannot_be_scored_in_time_are_dropped_and_what_is_left_of_a_chunk_comes_next(items):
    queue, seconds_left = filled(items), float(np.median(items.costs))
    taken = []
    while (chunk := queue.take_what_fits(1.0, seconds_left)) is not None:
        assert len(chunk) == 1 or items.cost(chunk) <= seconds_left / 2
        taken.append(chunk)
    assert flat(taken) == np.flatnonzero(items.costs <= seconds_left).tolist()
    assert (len(queue), queue.cost_waiting) == (0, 0)


def test_reordering_puts_the_smallest_margin_first_and_what_nothing_is_known_of_before_it(items):
    margin = np.random.default_rng(1).random(len(items))
    margin[:50] = np.nan
    queue = filled(items)
    queue.reorder(margin, LIMIT)
    order = flat(queue.chunks)
    assert sorted(order[:50]) == list(range(50))
    assert np.array_equal(items.costs[order[:50]], np.sort(items.costs[:50]))
    assert np.array_equal(margin[order[50:]], np.sort(margin[50:]))
    assert all(len(chunk) == 1 or items.cost(chunk) <= LIMIT for chunk in queue.chunks)


def test_an_empty_queue_has_nothing_to_give_or_to_reorder(items):
    queue = ChunkQueue(items)
    queue.reorder(np.zeros(len(items)), LIMIT)
    queue.drop()
    assert queue.take_what_fits(1.0, 100.0) is None
    assert (queue.chunks, queue.cost_waiting) == ([], 0)
