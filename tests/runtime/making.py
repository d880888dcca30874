"""Jobs of fake scorers, for tests of what runs are made of."""

import numpy as np
import pandas as pd

from lmsys_ensemble import FakeScorer
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.hosting.display import Screen
from lmsys_ensemble.hosting.progress import ScorerProgress
from lmsys_ensemble.hosting.scope import StopScope
from lmsys_ensemble.hosting.slots import Slot
from lmsys_ensemble.runtime.items import cut, make_items
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.results import Results

GPUS = [Slot(0, "cuda:0"), Slot(1, "cuda:1")]
EVERYWHERE = frozenset({"cuda:0", "cuda:1"})


def make_battles(n_rows, seed=0):
    lengths = np.random.default_rng(seed).lognormal(5.5, 1.0, n_rows).astype(int)
    prompts = [(f"{row} " + "x" * length,) for row, length in enumerate(lengths)]
    return Battles(pd.RangeIndex(n_rows), prompts, [("a",)] * n_rows, [("b",)] * n_rows)


def make_job(name, n_rows=40, home="cuda:0", devices=EVERYWHERE, weight=1.0, limit=1_000, scope=None, items=None):
    scope = scope or StopScope()
    results = Results(make_items(make_battles(n_rows)) if items is None else items, 3)
    progress = ScorerProgress(name, home, 0, Screen([name], "off"), scope)
    job = Job(FakeScorer(name=name), results, home, frozenset(devices), weight, progress, scope)
    job.enqueue(cut(job.items, np.arange(len(job.items)), limit))
    return job
