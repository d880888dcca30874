"""Who listens to a computation, and who does not."""

import inspect

import pytest

from lmsys_ensemble.progress import NOT_FINITE, OUT_OF_MEMORY, NoProgress, Progress

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
