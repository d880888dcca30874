import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.encoding.prefixes import SHORTEST_PREFIX, Family, find_families, keep_rows, unique_rows

UNLIMITED = 10**9


def rows_of(*texts):
    return [np.array(text, dtype=np.int32) for text in texts]


def codes_for(ids, code=0):
    return [np.full(len(row), code, dtype=np.int8) for row in ids]


BEGINNING = list(range(100, 100 + SHORTEST_PREFIX))
LONGER = list(range(100, 180))


@st.composite
def related_rows(draw):
    """Rows made of a few beginnings and any ends."""
    beginnings = [[7] * 10, [7] * 40 + [8] * 30, [9] * 50]
    ends = st.lists(st.integers(5, 9), min_size=1, max_size=60)
    rows = draw(st.lists(st.tuples(st.sampled_from(beginnings), ends), min_size=1, max_size=12))
    ids = rows_of(*(beginning + end for beginning, end in rows))
    codes = [np.array(draw(st.sampled_from([[0], [1]])) * len(row), dtype=np.int8) for row in ids]
    return ids, codes


@given(related_rows(), st.integers(1, 600))
def test_every_row_is_in_one_family_that_shares_what_it_says_and_saves_tokens(rows, max_tokens):
    ids, fields = rows
    lengths = np.array([len(row) for row in ids])
    families = find_families(ids, fields, max_tokens)
    assert sorted(row for family in families for row in family.rows) == list(range(len(ids)))
    for family in families:
        for row in family.rows:
            assert np.array_equal(ids[row][: family.n_shared], ids[family.rows[0]][: family.n_shared])
            assert np.array_equal(fields[row][: family.n_shared], fields[family.rows[0]][: family.n_shared])
            assert family.n_shared < lengths[row]
        if len(family.rows) > 1:
            assert family.n_shared >= SHORTEST_PREFIX
            assert family.cost(lengths) <= max_tokens
        else:
            assert (family.n_shared, family.cost(lengths)) == (0, lengths[family.rows[0]])
    assert sum(family.cost(lengths) for family in families) <= lengths.sum()


def test_a_common_beginning_is_found_wherever_the_rows_stand():
    ids = rows_of([*LONGER, 1], [3] * 90, [*LONGER, 2, 5])
    (alone, pair) = sorted(find_families(ids, codes_for(ids), UNLIMITED), key=lambda family: len(family.rows))
    assert (alone.rows, alone.n_shared) == ((1,), 0)
    assert (sorted(pair.rows), pair.n_shared) == ([0, 2], len(LONGER))
    assert pair.cost(np.array([81, 90, 82])) == 80 + 1 + 2


def test_a_row_that_is_the_beginning_of_another_keeps_a_token_of_its_own():
    ids = rows_of(LONGER, [*LONGER, 2])
    (pair,) = find_families(ids, codes_for(ids), UNLIMITED)
    assert pair.n_shared == len(LONGER) - 1


@pytest.mark.parametrize("n_common", [SHORTEST_PREFIX - 1, SHORTEST_PREFIX])
def test_short_beginnings_are_left_alone(n_common):
    ids = rows_of(BEGINNING[:n_common] + [1] * 5, BEGINNING[:n_common] + [2] * 5)
    assert len(find_families(ids, codes_for(ids), UNLIMITED)) == (1 if n_common == SHORTEST_PREFIX else 2)


def test_tokens_from_different_fields_are_not_common():
    ids = rows_of([*LONGER, 1], [*LONGER, 2])
    assert len(find_families(ids, [codes_for(ids, 1)[0], codes_for(ids, 2)[1]], UNLIMITED)) == 2


def test_a_family_does_not_grow_beyond_a_batch():
    ids = rows_of(*([*LONGER, end] for end in range(10)))
    families = find_families(ids, codes_for(ids), len(LONGER) + 4)
    assert [len(family.rows) for family in families] == [4, 4, 2]


def test_a_row_does_not_join_where_that_would_cost_the_others_more_than_it_saves():
    longest = list(range(100, 400))
    ids = rows_of(*([*longest, end] for end in range(4)), [*longest[:40], 999])
    families = find_families(ids, codes_for(ids), UNLIMITED)
    assert sorted((sorted(family.rows), family.n_shared) for family in families) == [([0, 1, 2, 3], 300), ([4], 0)]


@given(related_rows(), st.randoms(use_true_random=False))
def test_rows_that_are_kept_keep_what_they_share(rows, random):
    ids, fields = rows
    families = find_families(ids, fields, UNLIMITED)
    some = random.sample(range(len(ids)), random.randint(0, len(ids)))
    kept = keep_rows(families, some)
    assert sorted(place for family in kept for place in family.rows) == list(range(len(some)))
    shared = {row: family for family in families for row in family.rows}
    for family in kept:
        before = {shared[some[place]] for place in family.rows}
        assert len(before) == 1
        assert family.n_shared == (before.pop().n_shared if len(family.rows) > 1 else 0)


def test_kept_rows_are_numbered_by_their_places():
    families = [Family((4, 0, 2), 40), Family((3,), 0), Family((1, 5), 33)]
    assert keep_rows(families, [5, 4, 2]) == [Family((1, 2), 40), Family((0,), 0)]


def test_rows_are_the_same_where_tokens_and_fields_are():
    ids = rows_of([1, 2], [1, 2], [1, 2], [1])
    fields = [*codes_for(ids[:2]), *codes_for(ids[2:], 1)]
    first, kinds = unique_rows(ids, fields)
    assert (first.tolist(), kinds.tolist()) == ([0, 2, 3], [0, 0, 1, 2])
