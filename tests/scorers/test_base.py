"""The contract of a scorer: what a subclass gets for nothing."""

import copy
import pickle

import numpy as np
import pytest

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.scorers.base import NoProgress, Scorer


class Longer(Scorer):
    """Prefers the longer answer; writes down when it is loaded and closed."""

    def __init__(self, weight=1.0, *, name="longer", device="cpu"):
        self.weight = weight
        self.name = name
        self.device = device
        self.log = []

    def load(self, device=None):
        self.log.append(("load", device))

    def close(self):
        self.log.append(("close",))

    def score(self, battles):
        rows = [(len("".join(battle.response_a)), len("".join(battle.response_b)), 0) for battle in battles]
        return np.log1p(np.array(rows, dtype=np.float32)) * np.float32(self.weight)


def test_a_class_that_cannot_score_is_no_scorer():
    with pytest.raises(TypeError, match="abstract"):
        type("Idle", (Scorer,), {})()


def test_settings_are_the_constructors_arguments():
    scorer = Longer(2.0, device="cuda:1")
    assert scorer.settings() == {"weight": 2.0, "name": "longer", "device": "cuda:1"}
    assert scorer.fingerprint() == {"class": f"{__name__}:Longer", **scorer.settings()}
    assert repr(scorer) == "Longer(weight=2.0, name='longer', device='cuda:1')"
    assert repr(Longer(None)) == "Longer(name='longer', device='cpu')", "what is not set is not shown"


@pytest.mark.parametrize(
    "duplicate", [Longer.replica, copy.copy, copy.deepcopy, lambda scorer: pickle.loads(pickle.dumps(scorer))]
)
def test_a_copy_has_the_settings_and_nothing_that_was_loaded(duplicate):
    scorer = Longer(2.0, name="mine")
    scorer.load()
    other = duplicate(scorer)
    assert (type(other), other.settings(), other.log) == (Longer, scorer.settings(), [])


def test_a_with_statement_loads_and_frees_whatever_happens():
    scorer = Longer()
    with scorer as entered:
        assert entered is scorer
        assert scorer.log == [("load", None)]
    with pytest.raises(RuntimeError, match="mine"), scorer:
        raise RuntimeError("mine")
    assert scorer.log == [("load", None), ("close",)] * 2


def test_by_default_battles_are_prepared_as_they_are_and_cost_nobody_knows_what(battles_table):
    scorer, battles = Longer(), parse_battles(battles_table)
    assert scorer.prepare(battles) is battles
    assert np.array_equal(scorer.score_prepared(battles), scorer.score(battles))
    assert scorer.costs(battles) is None
    assert scorer.check(battles) is None
    assert (scorer.task, scorer.needs_device, scorer.shareable, scorer.reads_texts) == (THREE_WAY, False, False, True)
    assert isinstance(scorer.progress, NoProgress)
