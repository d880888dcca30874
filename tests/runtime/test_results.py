import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.runtime.items import make_items
from lmsys_ensemble.runtime.results import DONE, FAILED, MISSING, Results


@pytest.fixture
def results():
    """Return the results of four distinct battles, the first of which stands for two rows."""
    texts = ["a long question", "question", "what?", "why", "a long question"]
    battles = Battles(pd.RangeIndex(5), [(text,) for text in texts], [("a",)] * 5, [("b",)] * 5)
    return Results(make_items(battles), 3)


def test_nothing_is_there_at_first(results):
    assert results.logits.shape == (4, 3)
    assert np.isnan(results.logits).all()
    assert (results.n_wanted, results.n_finished, results.failed) == (0, 0, {})


def test_what_is_stored_is_done_or_failed_and_no_longer_missing(results):
    logits = np.array([[1, 2, 3], [np.nan] * 3], dtype=np.float32)
    assert results.want(np.arange(3)).tolist() == [0, 1, 2]
    results.store(np.array([2, 0]), logits, {1: "too long"})
    assert results.status.tolist() == [FAILED, MISSING, DONE, MISSING]
    assert results.logits[2].tolist() == [1, 2, 3]
    assert results.failed == {0: "too long"}
    assert results.want(np.arange(4)).tolist() == [1, 3]
    assert (results.n_wanted, results.n_finished) == (4, 2)


def test_rows_are_counted_as_the_user_has_them(results):
    results.want(np.arange(3))
    assert results.count_rows() == (0, 4, 4 / 3)
    results.store(np.array([0]), np.zeros((1, 3), np.float32), {})
    assert results.count_rows() == (2, 4, 1.0)


def test_an_earlier_run_is_taken_over_but_for_what_is_tried_again(results):
    keys = results.items.keys_of(np.arange(4))
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    reasons = {keys[1]: "too long", keys[2]: "out of memory", "0" * 32: "too long"}
    n_resumed = results.restore(np.array([1, -1, -1, 0]), logits, reasons, lambda why: why == "out of memory")
    assert n_resumed == 3
    assert results.status.tolist() == [DONE, FAILED, MISSING, DONE]
    assert results.logits[[0, 3]].tolist() == [[3, 4, 5], [0, 1, 2]]
    assert results.failed == {}  # no row of this run, so far
    assert results.want(np.arange(4)).tolist() == [2]
    assert results.failed == {1: "too long"}
