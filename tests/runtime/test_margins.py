import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble import Blender
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.runtime.items import make_items
from lmsys_ensemble.runtime.margins import Margins, margins
from tests.runtime.making import make_job

WEIGHTS = np.array([0.75, 0.25])


class Watched(Blender):
    """Counts the rows that it blends."""

    n_rows = 0

    def predict_proba(self, members, **options):
        blended = super().predict_proba(members, **options)
        self.n_rows += len(blended)
        return blended


@pytest.fixture
def battles():
    rows = [f"question {row % 30}" for row in range(40)]  # the last ten are duplicates
    return Battles(pd.RangeIndex(40), [(text,) for text in rows], [("yes",)] * 40, [("no",)] * 40)


def score(job, chunk):
    job.results.store(chunk, job.scorer.score(job.items.take(chunk)), {})


def test_margins_are_those_of_the_blend_so_far_and_only_rows_that_were_scored_meanwhile_are_blended(battles):
    first, second = jobs = [make_job(str(seed), items=make_items(battles)) for seed in range(2)]
    second.scorer.seed = 1
    blender = Watched(weights=WEIGHTS.tolist())
    known = Margins(jobs, blender)
    items = first.items
    members = [softmax(job.scorer.score(items.take(np.arange(30)))) for job in jobs]
    alone = margins(members[0])
    both = margins(WEIGHTS[0] * members[0] + WEIGHTS[1] * members[1])
    assert np.isnan(known.of(second)).all()
    assert blender.n_rows == 0
    score(first, np.arange(20))
    n_rows = int(np.isin(items.original, np.arange(20)).sum()) + 1  # one to see whether the blender is ready
    for _ in range(2):
        assert known.of(second)[:20] == pytest.approx(alone[:20])
        assert np.isnan(known.of(second)[20:]).all()
        assert blender.n_rows == n_rows  # each row once, duplicates among them
    score(second, np.arange(5, 8))
    expected = np.where(np.isin(np.arange(20), [5, 6, 7]), both[:20], alone[:20])
    assert known.of(first)[:20] == pytest.approx(expected)
    assert blender.n_rows == n_rows + int(np.isin(items.original, [5, 6, 7]).sum())


def test_margins_are_the_distance_of_the_two_likeliest_classes():
    assert margins(np.array([[0.2, 0.7, 0.1], [0.4, 0.2, 0.4]])) == pytest.approx([0.5, 0.0])
    assert margins(np.array([[0.25, 0.75]])) == pytest.approx([0.5])
