import os
import threading

import numpy as np
import pytest
import torch

from lmsys_ensemble.errors import ContractError
from lmsys_ensemble.testing.check import check_scorer
from lmsys_ensemble.testing.conduct import reachable_bytes
from lmsys_ensemble.testing.fake import FakeScorer


def loading(do):
    """Return a scorer that does something when it is loaded."""
    return type("Mine", (FakeScorer,), {"load": lambda self, device=None: do(self)})(name="mine")


def keep(scorer):
    scorer.weights = {"layers": [np.zeros(400_000), torch.zeros(400_000)]}


def draw(scorer):
    np.random.rand()


def leave_a_thread(scorer):
    scorer.ending = threading.Event()
    scorer.thread = threading.Thread(target=scorer.ending.wait, name="left over")
    scorer.thread.start()


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (keep, r"close\(\) kept 4\.6 MiB of arrays"),
        (draw, "mine changed the random state of NumPy"),
        (lambda _: os.environ.update(MINE="1"), "changed environment variables"),
        (lambda _: torch.set_default_dtype(torch.float64), "changed torch's default number format"),
        (lambda _: os.chdir("/"), "changed the working directory"),
    ],
    ids=["memory", "random state", "environment", "dtype", "folder"],
)
def test_what_a_scorer_leaves_behind_is_found(do, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINE", "0")
    try:
        with pytest.raises(ContractError, match=words):
            check_scorer(loading(do))
    finally:
        torch.set_default_dtype(torch.float32)


def test_threads_that_still_run_are_named():
    scorer = loading(leave_a_thread)
    try:
        with pytest.raises(ContractError, match="left threads running: left over"):
            check_scorer(scorer)
    finally:
        for thread in threading.enumerate():
            if thread.name == "left over":
                thread._target.__self__.set()


def test_what_is_freed_is_freed():
    class Tidy(FakeScorer):
        def load(self, device=None):
            keep(self)

        def close(self):
            self.weights = None

    check_scorer(Tidy())


def test_an_array_counts_once_however_often_it_is_held():
    scorer, array = FakeScorer(), np.zeros(1000)
    scorer.one, scorer.two, scorer.circle = array, {"again": [array]}, scorer
    assert reachable_bytes(scorer) == array.nbytes
