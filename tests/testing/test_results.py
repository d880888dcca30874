import threading

import numpy as np
import pytest

from lmsys_ensemble.errors import ContractError
from lmsys_ensemble.scorers.base import Costs
from lmsys_ensemble.testing.check import check_scorer
from lmsys_ensemble.testing.fake import FakeScorer
from lmsys_ensemble.testing.results import example_battles


class Refuses(FakeScorer):
    """Cannot score no rows."""

    def score(self, battles):
        return super().score(battles) if len(battles) else np.empty((0, 2), dtype=np.float32)


class Deaf(FakeScorer):
    """Says that it reads no texts, and does."""

    reads_texts = False


class Talkative(FakeScorer):
    """Tells of every row twice."""

    def score(self, battles):
        self.progress.advance(len(battles), 0)
        return super().score(battles)


class Miscounting(FakeScorer):
    """Gives costs of one row too few."""

    def costs(self, battles):
        return Costs(np.ones(len(battles) - 1, dtype=np.intp))


class Local(FakeScorer):
    """Prepares otherwise in another thread than the one that loaded it."""

    def load(self, device=None):
        self.owner = threading.get_ident()

    def prepare(self, battles):
        return battles, threading.get_ident() == self.owner

    def score_prepared(self, prepared):
        battles, is_owner = prepared
        return self.score(battles) + np.float32([0, 0, 0 if is_owner else 1])


class Common(FakeScorer):
    """Keeps its scale where every other of its kind finds it: whichever begins last decides."""

    shareable = False
    factor = 1.0
    gate = threading.Barrier(2)

    def score(self, battles):
        if threading.current_thread() is not threading.main_thread():
            type(self).factor = float(self.gate.wait())
        return super().score(battles) * np.float32(type(self).factor)


class Entangled(FakeScorer):
    """Says that it is shareable, and keeps the rows that it is at in itself."""

    gate = threading.Barrier(2)

    def score(self, battles):
        if threading.current_thread() is not threading.main_thread():
            self.turn = self.gate.wait()
            self.gate.wait()
            return super().score(battles) * np.float32(2 + self.turn)
        return super().score(battles)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Refuses, r"float32 array of shape \(0, 3\), got float32 \(0, 2\)"),
        (Deaf, "swapping the responses, which a scorer that reads no texts cannot see"),
        (Talkative, r"advance\(\) was told of 8 rows in all, and 4 were scored; tell of every row once"),
        (Miscounting, r"costs\(\) must return None or Costs with tokens of shape \(4,\)"),
        (Local, "preparing in another thread changed a probability"),
        (Common, "replicas in two other threads at once changed a probability"),
        (Entangled, "scoring in two threads at once changed a probability"),
    ],
)
def test_what_decides_a_rows_logits_beside_its_texts_is_found(kind, words):
    with pytest.raises(ContractError, match=words):
        check_scorer(kind())


def test_a_scorer_may_tell_of_no_rows_at_all():
    class Silent(FakeScorer):
        def score(self, battles):
            return FakeScorer(self.seed).score(battles)

    check_scorer(Silent())


def test_the_battles_that_come_with_the_library_differ_in_length_and_turns():
    battles = example_battles()
    assert len(set(map(len, battles.prompts))) > 1
    assert len({len("".join(turns)) for turns in battles.responses_a}) == len(battles)
