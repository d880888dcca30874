"""The thread that prepares rows."""

import threading

import pytest

from lmsys_ensemble.runtime.preparing import Preparer

PATIENCE = 300


def test_work_is_done_in_its_order_in_one_daemon_thread_that_ends_with_the_block():
    done = []
    with Preparer() as preparer:
        futures = [preparer.submit(lambda n=n: done.append(n) or threading.current_thread()) for n in range(5)]
        assert {future.result(PATIENCE) for future in futures} == {preparer.thread}
    assert done == list(range(5))
    assert preparer.thread.daemon
    assert not preparer.thread.is_alive()


def test_what_was_handed_in_is_done_before_the_block_ends():
    with Preparer() as preparer:
        futures = [preparer.submit(lambda: 1), preparer.submit(lambda: 2)]
    assert [future.result(0) for future in futures] == [1, 2]


@pytest.mark.parametrize("error", [ValueError("no text"), SystemExit(3)])
def test_an_error_goes_to_whoever_asks_for_the_result_and_ends_nothing(error):
    def fail():
        raise error

    with Preparer() as preparer:
        broken, whole = preparer.submit(fail), preparer.submit(lambda: "whole")
        with pytest.raises(type(error)) as caught:
            broken.result(PATIENCE)
        assert caught.value is error
        assert whole.result(PATIENCE) == "whole"
