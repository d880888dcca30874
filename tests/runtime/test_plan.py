import numpy as np
import pytest

from lmsys_ensemble import FakeScorer
from lmsys_ensemble.hosting.display import Screen
from lmsys_ensemble.hosting.scope import StopScope
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.runtime import items as items_module
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.plan import plan_run
from tests.runtime.making import make_battles


class LookedUp(FakeScorer):
    """Takes no notice of texts."""

    reads_texts = False


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(items_module, "MIN_CHUNK", 500)


def plan(scorers, battles, journal=None, **options):
    screen = Screen([scorer.name for scorer in scorers], "off")
    return plan_run(
        scorers, battles, RunOptions(**options), StopScope(), screen, homes=["cpu"] * len(scorers),
        slots=[Slot(0, "cpu")], weights=[1.0] * len(scorers), journal=journal,
    )  # fmt: skip


def waiting(job):
    return [chunk.tolist() for chunk in job.queue.chunks]


def test_every_scorer_gets_all_chunks_and_one_that_reads_no_texts_all_rows_at_once():
    battles = make_battles(30)
    made = plan([FakeScorer(name="a"), LookedUp(name="b"), FakeScorer(name="c")], battles)
    first, looked_up, last = made.jobs
    assert waiting(first) == waiting(last)
    assert len(waiting(first)) > 1
    assert sorted(np.concatenate(first.queue.chunks)) == list(range(30))
    assert waiting(looked_up) == [list(range(30))]
    assert looked_up.items.original.tolist() == list(range(30))
    assert made.items is first.items
    assert [job.progress.standing().n_wanted for job in made.jobs] == [30, 30, 30]


def test_swapped_passes_of_all_rows_are_queued_at_once_where_there_is_time():
    battles = make_battles(10)
    assert plan([FakeScorer()], battles, swap="all").jobs[0].queue.n_rows == 20
    later = plan([FakeScorer()], battles, swap="all", time_budget_s=60.0).jobs[0]
    assert later.queue.n_rows == 10
    assert len(later.items) == 20


def test_what_an_earlier_run_has_finished_is_not_queued(tmp_path):
    battles, scorer = make_battles(30), FakeScorer(name="a")
    with Journal.open(tmp_path / "run", {"a": scorer.fingerprint()}) as journal:
        (job,) = plan([scorer], battles, journal).jobs
        chunk = job.queue.take()
        journal.commit(
            "a", job.items.keys_of(chunk), scorer.score(job.items.take(chunk)), {}, device="cpu", n_tokens=0, seconds=0
        )
        expected = waiting(job)
    with Journal.open(tmp_path / "run", {"a": scorer.fingerprint()}) as journal:
        (again,) = plan([scorer], battles, journal).jobs
    assert waiting(again) == expected
    assert again.tally.n_resumed == len(chunk)
