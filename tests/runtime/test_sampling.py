import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.runtime.sampling import MOST_ROWS, SHARE, Guess, guess_load, rows_to_time, sample_by_length

seconds = st.floats(0, 1e5)
guesses = st.lists(st.builds(Guess, load_seconds=seconds, slot_seconds=seconds), min_size=1, max_size=4)


@given(guesses, st.integers(1, 100_000), st.integers(1, 8), st.floats(0, 1e6))
def test_loads_and_samples_take_a_tenth_of_the_run_or_nothing_is_timed(guesses, n_rows, n_slots, run):
    numbers = rows_to_time(guesses, n_rows, n_slots, run)
    assert all(0 <= number <= min(MOST_ROWS, n_rows) for number in numbers)
    if not any(numbers):
        return
    spent = sum(
        guess.load_seconds + (number + 1) / n_rows * guess.slot_seconds
        for guess, number in zip(guesses, numbers, strict=True)
    )
    assert spent <= SHARE * run * (1 + 1e-9) + 1e-9


def test_a_long_run_is_timed_on_as_many_rows_as_help_and_a_short_one_by_arithmetic():
    assert rows_to_time([Guess(30, 7200), Guess(30, 3600)], 25_000, 2, 5430) == [MOST_ROWS, MOST_ROWS]
    assert rows_to_time([Guess(6, 20)], 50, 2, 16) == [0]
    assert rows_to_time([Guess(2, 100)], 100, 1, 102) == [7]
    assert rows_to_time([Guess(2, 100)], 1, 1, 102) == [0]


def test_what_planning_has_spent_is_part_of_its_tenth():
    assert rows_to_time([Guess(2, 100)], 100, 1, 112, spent=5.0) == [3]
    assert rows_to_time([Guess(2, 100)], 100, 1, 112, spent=10.0) == [0]


def test_what_a_scorer_does_not_say_is_timed_on_a_twentieth():
    assert rows_to_time([None], 4, 2, 0.0) == [1]
    assert rows_to_time([None, Guess(6, 20)], 400, 2, 16) == [10, 0]
    assert rows_to_time([None], 10**6, 1, 0.0) == [MOST_ROWS]


def test_a_load_takes_longer_the_more_weights_there_are():
    assert 0 < guess_load(None) == guess_load(0) < guess_load(2**30) < guess_load(2**34)


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=300), st.integers(1, 100))
def test_a_sample_has_distinct_rows_from_every_part_of_the_range(work, n_rows):
    work = np.array(work)
    rows = sample_by_length(work, n_rows)
    assert len(set(rows)) == len(rows) == min(n_rows, len(work))
    ranks = np.argsort(np.argsort(work, kind="stable"))[rows]
    middles = (np.arange(len(rows)) + 0.5) * len(work) / len(rows)
    assert (np.abs(ranks + 0.5 - middles) <= 0.5).all()
