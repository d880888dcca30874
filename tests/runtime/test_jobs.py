import threading

import numpy as np
import pytest

from lmsys_ensemble import FakeScorer
from lmsys_ensemble.hosting.scope import Failure, StopScope
from lmsys_ensemble.runtime.jobs import Tally
from tests.runtime.making import make_job


def test_only_what_is_missing_is_queued_and_counted():
    job = make_job("a", 20)
    job.queue.drop()
    n_before, cost_before = job.n_to_score, job.cost_to_score
    job.results.store(np.arange(5), np.zeros((5, 3), np.float32), {})
    job.enqueue([np.arange(5), np.arange(3, 8)])
    assert [chunk.tolist() for chunk in job.queue.chunks] == [[5, 6, 7]]
    assert job.n_to_score - n_before == 3
    assert job.cost_to_score - cost_before == job.queue.cost_waiting == job.items.cost(np.arange(5, 8))


def test_seconds_are_projected_from_the_speed():
    job = make_job("a")
    assert (job.seconds_waiting, job.seconds_to_do) == (0, 0)
    job.speed.add(100, 1)
    job.cost_begun = 50
    assert job.seconds_waiting == pytest.approx(job.queue.cost_waiting / 100)
    assert job.seconds_to_do == pytest.approx(job.seconds_waiting + 0.5)


def test_scorers_that_read_no_texts_rank_first_then_the_greater_weight_then_the_faster():
    looked_up, heavy, fast, slow = jobs = [make_job(name) for name in ("looked up", "heavy", "fast", "slow")]

    class LookedUp(FakeScorer):
        reads_texts = False

    looked_up.scorer = LookedUp()
    heavy.weight = 2.0
    slow.speed.add(1, 10)
    fast.speed.add(1, 1)
    assert sorted(jobs[::-1], key=lambda job: job.rank) == jobs


def test_a_job_has_failed_when_its_scope_says_so():
    scope, error = StopScope(keep_going=True), RuntimeError("boom")
    broken, whole = make_job("broken", scope=scope), make_job("whole", scope=scope)
    scope.fail(Failure("broken", error))
    assert (broken.failure, whole.failure) == (error, None)


def test_what_slots_add_at_the_same_time_is_added_up():
    tally = Tally()

    def work():
        for _ in range(1_000):
            tally.add("score", 1.0)
            tally.count(2, 3)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.totals() == {"score": 2_000.0}
    assert (tally.n_chunks, tally.n_rows, tally.n_tokens) == (2_000, 4_000, 6_000)
