"""Scorers whose results depend on what is scored together, for tests of runs that are resumed."""

import itertools

import numpy as np

from lmsys_ensemble import FakeScorer


class Neighbourly(FakeScorer):
    """Logits whose last digits depend on what is scored together, as those of a model in low precision do.

    Fails when it has begun `fail_after` chunks.
    """

    def __init__(self, seed=0, *, name="one", fail_after=None, bad_rows=(), why=None):
        super().__init__(seed, name=name)
        self.fail_after = fail_after
        self.bad_rows = bad_rows
        self.why = why
        self.seen = []
        self.n_begun = itertools.count(1)
        self.n_loads = 0

    def fingerprint(self):
        return {"seed": self.seed}

    def load(self, device=None):
        self.n_loads += 1

    def score(self, battles):
        if self.fail_after is not None and next(self.n_begun) > self.fail_after:
            raise RuntimeError("CUDA error: boom")
        logits = super().score(battles)
        logits += np.float32(1e-4) * np.random.default_rng(len(battles)).random(logits.shape, dtype=np.float32)
        logits += np.float32(1e-3) * logits.mean()
        for row, row_id in enumerate(battles.ids):
            if row_id in self.bad_rows:
                logits[row] = np.nan
                if self.why:
                    self.progress.row_failed(row, self.why)
        self.seen.append(battles.content_hashes())
        return logits

    @property
    def rows_seen(self):
        return [name for chunk in self.seen for name in chunk]


def pair(**first):
    return [Neighbourly(0, name="one", **first), Neighbourly(1, name="two")]
