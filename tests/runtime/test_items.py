import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.runtime.items import (
    MAX_CHUNK,
    MIN_CHUNK,
    chunk_limit,
    cut,
    make_items,
    make_rows,
    pair_up,
    plan_chunks,
)

TEXTS = st.sampled_from(["", "a", "b", "yes", "no, never", "x" * 40])
TABLES = st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=30)
LIMITS = st.integers(1, 200)


def as_battles(rows, ids=None):
    prompts, responses_a, responses_b = ([(row[field],) for row in rows] for field in range(3))
    return Battles(pd.Index(range(len(rows)) if ids is None else ids), prompts, responses_a, responses_b)


def texts(battles):
    return list(zip(battles.prompts, battles.responses_a, battles.responses_b, strict=True))


def flat(chunks):
    return [int(item) for chunk in chunks for item in chunk]


# --- items ----------------------------------------------------------------------------------------------------------


@given(TABLES, st.booleans())
def test_every_distinct_battle_is_one_item_and_every_row_finds_its_own(rows, both_passes):
    battles = as_battles(rows)
    items = make_items(battles, both_passes)
    everything = items.take(np.arange(len(items)))
    assert items.keys_of(np.arange(len(items))) == everything.content_hashes()
    assert len(set(everything.content_hashes())) == len(items)
    assert texts(items.take(items.original)) == texts(battles)
    expected = set(battles.content_hashes())
    if both_passes:
        assert texts(items.take(items.swapped_pass)) == texts(battles.swapped())
        expected |= set(battles.swapped().content_hashes())
    assert set(everything.content_hashes()) == expected


@given(TABLES, st.randoms(use_true_random=False))
def test_items_are_longest_first_and_do_not_depend_on_the_order_of_the_table(rows, random):
    items = make_items(as_battles(rows), both_passes=True)
    ranks = [(-int(cost), key) for cost, key in zip(items.costs, items.keys_of(np.arange(len(items))), strict=True)]
    assert ranks == sorted(ranks)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert np.array_equal(make_items(as_battles(shuffled), both_passes=True).keys, items.keys)


@given(TABLES)
def test_the_partner_of_an_item_has_its_responses_swapped(rows):
    items = make_items(as_battles(rows), both_passes=True)
    partners = items.partners()
    assert texts(items.take(partners)) == texts(items.take(np.arange(len(items))).swapped())
    assert np.array_equal(partners[partners], np.arange(len(items)))


def test_ids_of_items_are_those_of_all_rows_that_need_them_in_the_tables_order():
    rows = [("p", "a", "b"), ("q", "a", "b"), ("p", "a", "b"), ("p", "b", "a")]
    battles = as_battles(rows, ids=[9, 8, 7, 6])
    items = make_items(battles)
    assert items.ids(items.original[:1]) == [9, 7]
    assert items.ids(items.original[[1, 0]]) == [9, 8, 7]
    both = make_items(battles, both_passes=True)
    assert both.ids(both.original[:1]) == [9, 7, 6]  # the last needs it for its second pass


def test_items_are_found_by_their_keys():
    items = make_items(as_battles([("p", "a", "b"), ("q", "a", "b"), ("", "", "")]))
    keys = items.keys_of(np.arange(3))
    assert items.locate([*keys[::-1], "0" * 32, "f" * 32]).tolist() == [2, 1, 0, -1, -1]
    assert items.locate([]).tolist() == []


def test_rows_that_are_looked_up_by_id_are_never_merged():
    battles = as_battles([("p", "a", "b")] * 3)
    items = make_rows(battles)
    assert items.take(np.arange(3)).ids.tolist() == [0, 1, 2]
    assert items.original.tolist() == [0, 1, 2]


# --- chunks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total_cost", "n_slots", "expected"),
    [(0, 2, MIN_CHUNK), (6_400_000, 2, 100_000), (6_400_000, 8, 25_000), (10**9, 2, MAX_CHUNK), (10**6, 0, 31_250)],
)
def test_chunks_are_a_share_of_the_work_within_limits(total_cost, n_slots, expected):
    assert chunk_limit(total_cost, n_slots) == expected


@given(TABLES, LIMITS)
def test_chunks_hold_every_item_once_in_order_and_keep_to_the_limit(rows, limit):
    items = make_items(as_battles(rows))
    order = np.arange(len(items))
    chunks = cut(items, order, limit)
    assert flat(chunks) == order.tolist()
    for chunk, following in zip(chunks, [*chunks[1:], None], strict=True):
        assert len(chunk) == 1 or items.cost(chunk) <= limit
        if following is not None:  # none is smaller than it need be
            assert items.cost(chunk) + items.costs[following[0]] > limit


@given(TABLES, LIMITS)
def test_a_row_and_its_swap_stay_beside_each_other(rows, limit):
    items = make_items(as_battles(rows), both_passes=True)
    order, pairs = pair_up(items)
    kept, chunks = plan_chunks(items, order, limit, groups=pairs)
    assert kept == []
    assert sorted(flat(chunks)) == list(range(len(items)))
    partners = items.partners()
    for chunk in chunks:
        places = {item: place for place, item in enumerate(chunk.tolist())}
        assert all(abs(places[int(partners[item])] - place) <= 1 for item, place in places.items())


@given(TABLES, LIMITS, LIMITS, st.sets(st.integers(0, 29)), st.booleans())
def test_a_plan_keeps_the_chunks_of_an_earlier_run_whose_rows_are_all_wanted(rows, limit, other, dropped, both_passes):
    earlier = make_items(as_battles(rows), both_passes)
    _, first = plan_chunks(earlier, np.arange(len(earlier)), limit)
    recorded = [earlier.keys_of(chunk) for chunk in first]
    left = [row for position, row in enumerate(rows) if position not in dropped] + [("new", "and", "longer")]
    items = make_items(as_battles(left), both_passes)
    kept, added = plan_chunks(items, np.arange(len(items)), other, recorded)
    assert sorted(flat(kept + added)) == list(range(len(items)))
    wanted = set(items.keys_of(np.arange(len(items))))
    assert [items.keys_of(chunk) for chunk in kept] == [keys for keys in recorded if set(keys) <= wanted]


def test_a_row_that_was_recorded_twice_is_scored_once():
    items = make_items(as_battles([("p", "a", "b"), ("qq", "a", "b")]))
    keys = items.keys_of(np.arange(2))
    kept, added = plan_chunks(items, np.arange(2), 1, [[keys[1]], keys, [keys[0]]])
    assert [chunk.tolist() for chunk in kept + added] == [[1], [0]]
