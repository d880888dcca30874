"""A scorer without a model, for tests of what surrounds scorers."""

import time
from typing import ClassVar

import numpy as np

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.schema import Task, task_of
from lmsys_ensemble.scorers.base import Scorer


class FakeScorer(Scorer):
    """Logits that depend on a row's texts and on a seed, and on nothing else.

    The same row gets the same logits in every run, batch, order and process.

    Parameters
    ----------
    seed : int
        Another seed is another model.
    scale : float
        Standard deviation of the logits.
    seconds_per_row : float
        Seconds that scoring takes per row.
    n_classes : int
        3 (A, B, tie) or 2 (A, B).
    name, device : str
        As for every scorer.
    """

    shareable: ClassVar[bool] = True
    neutral_settings: ClassVar[tuple[str, ...]] = ("seconds_per_row",)

    def __init__(
        self,
        seed: int = 0,
        *,
        scale: float = 1.0,
        seconds_per_row: float = 0.0,
        n_classes: int = 3,
        name: str = "fake",
        device: str = "cpu",
    ):
        self.seed = seed
        self.scale = scale
        self.seconds_per_row = seconds_per_row
        self.n_classes = n_classes
        self.name = name
        self.device = device

    @property
    def task(self) -> Task:  # type: ignore[override]
        """Classes, in the order of the logits' columns."""
        return task_of(self.n_classes)

    def score(self, battles: Battles) -> Logits:
        """Return logits of shape (n_rows, n_classes)."""
        logits = np.empty((len(battles), self.task.n_classes), dtype=np.float32)
        for row, digest in enumerate(battles.content_hashes()):
            generator = np.random.default_rng([self.seed, int(digest, 16)])
            logits[row] = self.scale * generator.standard_normal(self.task.n_classes)
            if self.seconds_per_row:
                time.sleep(self.seconds_per_row)
            self.progress.advance(1, 0)
        return logits
