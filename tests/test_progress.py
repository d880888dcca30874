"""Who listens to a computation, and who does not."""

import inspect

import pytest

from lmsys_ensemble.progress import NOT_FINITE, OUT_OF_MEMORY, GroupedProgress, NoProgress, Progress

CALLS = {
    "phase": ("loading",),
    "advance": (3, 40),
    "retried": ("out of memory",),
    "row_failed": (2, NOT_FINITE),
}


def test_these_are_all_that_is_told():
    assert {name for name in vars(Progress) if not name.startswith("_")} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_by_default_everything_is_taken_and_nothing_done(name):
    assert inspect.signature(getattr(NoProgress, name)) == inspect.signature(getattr(Progress, name))
    listener = NoProgress()
    assert getattr(listener, name)(*CALLS[name]) is None
    assert vars(listener) == {}


def test_want_of_memory_and_what_is_no_number_are_told_apart():
    assert not NOT_FINITE.startswith(OUT_OF_MEMORY)


def test_rows_that_are_one_are_reported_once():
    told = []

    class Listener(NoProgress):
        def advance(self, n_rows, n_tokens):
            told.append((n_rows, n_tokens))

        def row_failed(self, row, why):
            told.append((row, why))

    progress = GroupedProgress(Listener(), 3)
    for n_rows in (2, 2, 5):
        progress.advance(n_rows, 10)
    for row in (4, 5, 6):
        progress.row_failed(row, NOT_FINITE)
    assert told == [(0, 10), (1, 10), (2, 10), (1, NOT_FINITE), (2, NOT_FINITE)]
