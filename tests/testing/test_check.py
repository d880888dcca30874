"""The conformance check of scorers finds what breaks the contract."""

import numpy as np
import pytest

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.errors import ContractError
from lmsys_ensemble.testing.check import check_scorer
from lmsys_ensemble.testing.fake import FakeScorer


class Renaming(FakeScorer):
    """Changes an argument."""

    def __init__(self, seed=0, *, name="mine"):
        super().__init__(seed, name=f"{name}!")


class Forgetful(FakeScorer):
    """Does not store an argument."""

    def __init__(self, seed=0, *, name="mine", extra=1):
        super().__init__(seed, name=name)


class Unspeakable(FakeScorer):
    """Has a fingerprint that JSON cannot hold."""

    def fingerprint(self):
        return {"weights": {1, 2}}


class Drifting(FakeScorer):
    """Has another fingerprint every time."""

    n_asked = 0

    def fingerprint(self):
        self.n_asked += 1
        return {"asked": self.n_asked}


class Changed(FakeScorer):
    """Does something to its logits."""

    change = staticmethod(lambda scorer, logits: logits)

    def score(self, battles):
        return self.change(self, super().score(battles))


def changed(change):
    return type("Mine", (Changed,), {"change": staticmethod(change)})(name="mine")


class Sated(Changed):
    """Scores otherwise once it has been loaded a second time."""

    n_loads = 0

    def load(self, device=None):
        self.n_loads += 1

    def change(self, scorer, logits):
        return logits * scorer.n_loads


class Counting(FakeScorer):
    """Scores otherwise with every call."""

    n_calls = 0

    def score(self, battles):
        self.n_calls += 1
        return super().score(battles) + np.float32([self.n_calls // 4, 0, 0])


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        (Renaming(), "Renaming's constructor changes its arguments"),
        (Forgetful(), "Forgetful's constructor must store every argument by its name: .*'extra'"),
        (FakeScorer(name=""), "FakeScorer needs a name"),
        (Unspeakable(), r"fake: fingerprint\(\) must hold JSON values only"),
        (Drifting(), r"fake: fingerprint\(\) changed although no setting did"),
        (changed(lambda _, logits: logits.astype(float)), r"float32 array of shape \(4, 3\), got float64 \(4, 3\)"),
        (changed(lambda _, logits: logits[:, :2]), r"shape \(4, 3\), got float32 \(4, 2\)"),
        (changed(lambda _, logits: logits.tolist()), r"shape \(4, 3\), got list"),
        (changed(lambda _, logits: logits * np.float32(np.inf)), "NaN or infinite logits"),
        (changed(lambda _, logits: logits * np.arange(len(logits), dtype="f4")[:, None]), "other rows' order changed"),
        (changed(lambda _, logits: logits * np.float32(len(logits))), "fewer rows changed a probability"),
        (Counting(), "a second call changed a probability"),
        (Sated(), "closing and loading again changed a probability"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_breaks_the_contract_is_said(scorer, words):
    with pytest.raises(ContractError, match=words):
        check_scorer(scorer)


def test_the_tolerance_is_for_probabilities():
    scorer = changed(lambda _, logits: logits + np.float32([0.01 * len(logits), 0, 0]))
    check_scorer(scorer, tolerance=0.05)
    with pytest.raises(ContractError, match=r"at most 1e-05 is allowed"):
        check_scorer(scorer, tolerance=1e-5)


def test_own_battles_are_scored_and_one_is_not_enough(battles_table):
    seen = []
    scorer = changed(lambda _, logits: seen.append(len(logits)) or logits)
    check_scorer(scorer, parse_battles(battles_table))
    assert max(seen) == 5
    with pytest.raises(ContractError, match="needs at least two battles"):
        check_scorer(FakeScorer(), parse_battles(battles_table)[:1])
