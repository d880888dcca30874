import threading
import time

import pytest

from lmsys_ensemble.hosting.budget import Deadline
from lmsys_ensemble.hosting.scope import Failure, Gate, StopScope, StopScoring

PATIENCE = 60
"""Seconds after which a test that waits for another thread has failed."""


def test_a_new_scope_stops_nobody():
    scope = StopScope()
    assert (scope.is_over, scope.is_cancelled, scope.is_over_for("a")) == (False, False, False)
    scope.check("a")
    assert scope.failure_of("a") is None


def test_a_scope_that_is_cancelled_is_over_for_all():
    scope = StopScope()
    scope.cancel()
    assert scope.is_over
    with pytest.raises(StopScoring):
        scope.check("a")


def test_a_scope_is_over_when_its_deadline_is():
    now = [0.0]
    scope = StopScope(Deadline(10.0, lambda: now[0]))
    assert not scope.is_over
    now[0] = 10.0
    assert scope.is_over_for("a")
    assert not scope.is_cancelled


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_failure_ends_its_scorer_and_the_run_unless_that_keeps_going(keep_going):
    scope, first, second = StopScope(keep_going=keep_going), RuntimeError("boom"), RuntimeError("once more")
    for error in (first, second):
        scope.fail(Failure("a", error, "cpu"))
    assert scope.failure_of("a") is first
    assert scope.is_over_for("a")
    assert scope.is_over_for("b") is scope.is_cancelled is (not keep_going)
    assert [failure.error for failure in scope.failures] == [first, second]


def test_a_failure_of_the_run_itself_ends_it():
    scope = StopScope(keep_going=True)
    scope.fail(Failure(None, OSError("the disk is full")))
    assert scope.is_cancelled
    assert scope.failure_of("a") is None


def test_nothing_passes_a_closed_gate_and_closing_waits_for_what_is_passing():
    gate, inside, order = Gate(), threading.Event(), []

    def work():
        with gate.passed():
            inside.set()
            time.sleep(0.05)
            order.append("passed")

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(PATIENCE)
    gate.close()
    order.append("closed")
    thread.join(PATIENCE)
    assert order == ["passed", "closed"]
    with pytest.raises(StopScoring), gate.passed():
        order.append("too late")
    assert order == ["passed", "closed"]
