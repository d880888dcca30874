"""lmsys_ensemble: ``Ensemble([ClassifierScorer(folder)]).member_probabilities(battles)``, through its scheduler.

Timed from the end of loading to the last probability. Unlike the peers it is given texts: token ids are made within
that time (``prepare`` in the note).
"""

import threading
import time
from typing import ClassVar

import pandas as pd

from lmsys_ensemble import ClassifierScorer, Ensemble, parse_battles

PACKAGES = ("lmsys-ensemble",)


class Clocked(ClassifierScorer):
    """Says when its model was loaded; replicas that load later are on the clock."""

    loaded_at: ClassVar[list[float]] = []
    lock: ClassVar = threading.Lock()

    def load(self, device=None):
        """Load, and note when that was done."""
        super().load(device)
        with self.lock:
            self.loaded_at.append(time.perf_counter())


class Score:
    """Scores rows of the job; `load_s` and `seconds` are the last call's times of loading and after it."""

    def __init__(self, job):
        self.settings = dict(job["settings"])
        self.folder = job["ours"]
        self.table = pd.read_parquet(job["table"])
        self.seconds = self.load_s = None
        self.note = ""

    def __call__(self, rows):
        """Return probabilities of shape (n_rows, 3)."""
        battles = parse_battles(self.table.iloc[list(rows)])
        ensemble = Ensemble([Clocked(self.folder, name="ours", device="cpu", **self.settings)], progress="off")
        Clocked.loaded_at.clear()
        found = ensemble.member_probabilities(battles)["ours"]
        self.seconds = time.perf_counter() - min(Clocked.loaded_at)
        self.load_s = ensemble.summary_.scorers[0].seconds["load"]
        phases = ensemble.summary_.scorers[0].seconds
        spent = ", ".join(f"{phase} {value:.2f} s" for phase, value in phases.items())
        self.note = f"{len(ensemble.summary_.devices)} slots; {spent} (added up over slots)"
        return found.tolist()


def load(job):
    return Score(job)
