from hypothesis import example, given
from hypothesis import strategies as st

from lmsys_ensemble.encoding.truncation import balanced_shares, fair_shares

LENGTHS = st.integers(0, 60)
FIELDS = st.lists(LENGTHS, min_size=1, max_size=5)
BATTLES = st.lists(st.tuples(st.tuples(LENGTHS, LENGTHS, LENGTHS), st.integers(0, 8)), min_size=1, max_size=5)


@given(FIELDS, st.integers(-5, 200))
def test_shares_use_the_whole_budget_and_give_no_field_more_than_it_has(lengths, budget):
    kept = fair_shares(lengths, budget)
    assert sum(kept) == min(max(budget, 0), sum(lengths))
    assert all(0 <= share <= length for share, length in zip(kept, lengths, strict=True))


@given(FIELDS, st.integers(0, 200))
def test_shares_are_fair_no_field_is_cut_below_another_by_more_than_one(lengths, budget):
    kept = fair_shares(lengths, budget)
    for share, length in zip(kept, lengths, strict=True):
        if share < length:
            assert max(kept) <= share + 1


@given(BATTLES, st.integers(-5, 300))
@example([((50, 50, 0), 5), ((3, 0, 9), 5)], 40)
def test_turns_are_filled_from_the_last_one_backwards(turns, budget):
    lengths, literals = [list(fields) for fields, _ in turns], [literal for _, literal in turns]
    kept, first = balanced_shares(lengths, literals, budget)
    # What is dropped is a beginning, and nothing of it is kept.
    assert all(sum(fields) == 0 for fields in kept[:first])
    # All turns but the first one kept are whole.
    assert kept[first + 1 :] == lengths[first + 1 :]
    used = sum(literals[first:]) + sum(map(sum, kept))
    if first < len(turns):
        assert used <= budget
        assert all(share > 0 for share, length in zip(kept[first], lengths[first], strict=True) if length)
        assert kept[first] == fair_shares(lengths[first], sum(kept[first]))
        if kept[first] != lengths[first]:
            assert used == budget
    # What is dropped could not have kept a token of each of its fields.
    if first > 0 and kept[first:] == lengths[first:]:
        assert budget - used < literals[first - 1] + sum(length > 0 for length in lengths[first - 1])


@given(BATTLES)
def test_what_fits_is_not_cut(turns):
    lengths, literals = [list(fields) for fields, _ in turns], [literal for _, literal in turns]
    assert balanced_shares(lengths, literals, sum(map(sum, lengths)) + sum(literals)) == (lengths, 0)
