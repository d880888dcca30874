"""Which rows get a swapped pass; `tests/runtime/test_outcome.py` tests it in runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble import Blender
from lmsys_ensemble.hosting.scope import Failure, StopScope, StopScoring
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.runtime.items import make_items
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.planning import Planner
from lmsys_ensemble.runtime.results import FAILED
from lmsys_ensemble.runtime.selection import SwapSelection, closest_to_call
from lmsys_ensemble.schema import THREE_WAY
from tests.runtime.making import make_battles, make_job


def select(n_jobs=2, scope=None, **options):
    """Return a selection over jobs that have scored all original passes, and the jobs."""
    scope = scope or StopScope(keep_going=True)
    items = make_items(make_battles(12), both_passes=True)
    jobs = [make_job(str(number), scope=scope, items=items) for number in range(n_jobs)]
    for seed, job in enumerate(jobs):
        job.queue.drop()
        job.scorer.seed = seed
        job.results.store(items.original, job.scorer.score(items.take(items.original)), {})
    planner = Planner(items, RunOptions(**options), 1_000, None, [])
    return SwapSelection(jobs, planner, THREE_WAY, Blender(), scope), jobs


def test_the_closest_rows_of_the_blend_are_queued_for_every_scorer():
    selection, jobs = select(swap="adaptive", swap_share=0.25)
    assert selection.queue() == []
    items = jobs[0].items
    blended = np.mean([softmax(job.results.logits[items.original]) for job in jobs], axis=0)
    closest = np.argsort(np.abs(blended[:, 0] - blended[:, 1]))[:3]
    assert np.flatnonzero(selection.rows()).tolist() == sorted(closest)
    for job in jobs:
        assert job.swapping
        assert sorted(np.concatenate(job.queue.chunks)) == sorted(items.swapped_pass[closest])


def test_without_swapped_passes_no_row_has_one():
    selection, _ = select(swap="off")
    assert not selection.rows().any()


def test_rows_are_chosen_at_the_end_where_there_was_no_time_to_queue_them():
    selection, jobs = select(swap="adaptive", swap_share=0.5)
    assert selection.rows().sum() == 6
    assert all(not len(job.queue) for job in jobs)


def test_a_scorer_that_has_failed_gets_no_more_work():
    scope = StopScope(keep_going=True)
    selection, (broken, whole) = select(scope=scope, swap="all")
    scope.fail(Failure(broken.name, RuntimeError("boom")))
    selection.queue()
    assert (broken.queue.n_rows, whole.queue.n_rows) == (0, 12)


def test_too_many_rows_that_failed_in_an_earlier_run_fail_their_scorer():
    selection, (broken, _) = select(swap="all", max_failed_rows=0.1)
    for item in broken.items.swapped_pass[:4].tolist():
        broken.results.reasons[item] = "too long"
        broken.results.status[item] = FAILED
    (failure,) = selection.queue()
    assert failure.scorer == broken.name
    assert "too long" in str(failure.error)


def test_nothing_is_queued_after_the_end():
    scope = StopScope()
    selection, jobs = select(scope=scope, swap="all")
    scope.gate.close()
    with pytest.raises(StopScoring):
        selection.queue()
    assert all(not len(job.queue) for job in jobs)


@given(st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
def test_the_closest_rows_come_first_and_those_without_an_original_pass_never(n_rows, share, share_known):
    generator = np.random.default_rng(n_rows)
    probabilities = generator.dirichlet(np.ones(3), n_rows)
    known = generator.random(n_rows) < share_known
    chosen = closest_to_call(probabilities, share, known)
    apart = np.abs(probabilities[:, 0] - probabilities[:, 1])
    assert len(chosen) == min(int(np.ceil(share * n_rows)), known.sum())
    assert known[chosen].all()
    assert apart[chosen].tolist() == sorted(apart[known])[: len(chosen)]
