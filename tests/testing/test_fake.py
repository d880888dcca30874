import numpy as np
import pytest

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.scorers.base import NoProgress
from lmsys_ensemble.testing.check import check_scorer
from lmsys_ensemble.testing.fake import FakeScorer


def test_the_fake_keeps_the_contract_of_scorers(battles_table):
    check_scorer(FakeScorer(3, scale=2.0, name="mine"))
    check_scorer(FakeScorer(), parse_battles(battles_table), tolerance=0)


def test_logits_depend_on_the_texts_and_the_seed_alone(battles_table):
    battles = parse_battles(battles_table)
    logits = FakeScorer(1).score(battles)
    renamed = parse_battles(battles_table.assign(id=["a", "b", "c", "d", "e"]))
    assert np.array_equal(FakeScorer(1, name="other", device="cuda:0").score(renamed), logits)
    order = np.array([3, 0, 4, 1, 2])
    assert np.array_equal(FakeScorer(1).score(battles.take(order)), logits[order])
    assert not np.isclose(FakeScorer(2).score(battles), logits).any()
    assert not np.isclose(FakeScorer(1).score(battles.swapped()), logits).any()


def test_the_scale_is_the_standard_deviation_of_the_logits(make_battles):
    battles = make_battles(*[(f"question {i}", "yes", "no") for i in range(2_000)])
    logits = FakeScorer(scale=3.0).score(battles)
    assert (logits.shape, logits.dtype) == ((2_000, 3), np.float32)
    assert logits.std() == pytest.approx(3, rel=0.05)
    assert logits.mean() == pytest.approx(0, abs=0.2)


def test_progress_is_told_of_every_row(battles_table):
    class Listener(NoProgress):
        rows = 0

        def advance(self, n_rows, n_tokens):
            self.rows += n_rows

    scorer = FakeScorer()
    scorer.progress = Listener()
    scorer.score(parse_battles(battles_table))
    assert scorer.progress.rows == 5
