"""Which scorers stay loaded between runs, and which call may use a scorer."""

import gc
import logging
import threading
import weakref

import pytest

from lmsys_ensemble import Ensemble, FakeScorer
from lmsys_ensemble.errors import DeviceError
from lmsys_ensemble.hosting.residence import Resident, exclusively, let_go, residence_of, wait_seconds
from tests.hosting.watched import Failing, Heavy, Single, Watched, count, events

PATIENCE = 300


def test_a_replica_that_is_not_wanted_any_more_is_freed(log, battles_table):
    scorer = Single(log=log)
    with Ensemble([scorer], devices=["cpu"] * 2) as ensemble:
        replica = scorer.replica()
        residence_of(scorer).residents.insert(0, Resident(replica, "cpu", replica.fingerprint()))
        ensemble.predict(battles_table)
        assert len(residence_of(scorer).residents) == 2
        assert count(log, "close") == 0
        ensemble.devices = ["cpu"]
        ensemble.predict(battles_table)
        assert len(residence_of(scorer).residents) == 1
        assert residence_of(scorer).has(scorer)
        assert count(log, "close") == 1


@pytest.mark.parametrize("leak", [0, 2**21])
def test_memory_that_a_kept_scorer_leaves_taken_is_said_and_only_that(log, battles_table, gpu, caplog, leak):
    scorers = [Heavy(log=log, name="one", n_bytes=2**30), Heavy(log=log, name="two", n_bytes=2**30, leak=leak)]
    with caplog.at_level(logging.WARNING, logger="lmsys_ensemble"), Ensemble(scorers) as ensemble:
        ensemble.predict(battles_table)
    expected = [f"two left {leak} bytes of cuda:0 taken after it was closed"] if leak else []
    assert caplog.messages == expected


def test_what_one_ensemble_keeps_another_uses_and_leaves_loaded(log, battles_table):
    scorer = Watched(log=log)
    keeping, passing = Ensemble([scorer]), Ensemble([scorer])
    keeping.load()
    passing.predict(battles_table)
    passing.close()
    assert events(log) == ["load", "score"]
    passing.load()
    keeping.close()
    assert events(log) == ["load", "score"]
    passing.close()
    assert events(log) == ["load", "score", "close"]


def test_what_is_handed_back_while_its_last_holder_lets_go_is_freed(log):
    scorer = Watched(log=log)
    residence, holder = residence_of(scorer), Ensemble([FakeScorer()])
    closing = threading.Thread(target=let_go, args=([scorer], holder))

    class Holders(weakref.WeakSet):
        def __len__(self):
            """Have the holder let go just when somebody is told that there is one."""
            n_holders = super().__len__()
            if closing.ident is None:
                closing.start()
                closing.join(0.3)
            return n_holders

    residence.holders = Holders([holder])
    kept = residence.keep(Resident(scorer, "cpu", {}))
    closing.join(PATIENCE)
    assert (kept, residence.residents, log) == (True, [], [("watched", "close")])


def test_an_ensemble_that_is_forgotten_keeps_nothing_loaded(log, battles_table):
    scorer = Watched(log=log)
    Ensemble([scorer]).load()
    gc.collect()
    Ensemble([scorer]).predict(battles_table)
    assert count(log, "load") == count(log, "close")


def test_an_error_in_closing_one_keeps_none_of_the_others_loaded(log):
    scorers = [Failing(log=log, name="bad", failing="close"), Watched(log=log, name="good")]
    ensemble = Ensemble(scorers).load()
    with pytest.raises(RuntimeError, match="told to"):
        ensemble.close()
    assert count(log, "close", "good") == 1
    ensemble.close()
    assert count(log, "close") == 2


def test_who_waits_for_a_scorer_can_be_interrupted_and_leaves_nothing_taken():
    scorer = FakeScorer()
    with exclusively([scorer]):
        pass
    with pytest.raises(RuntimeError, match="mine"), exclusively([scorer]):
        raise RuntimeError("mine")
    with exclusively([scorer, FakeScorer()]):
        pass


def test_a_scorer_that_is_used_is_refused_to_others_and_so_are_those_asked_for_with_it():
    used, free = FakeScorer(name="used"), FakeScorer(name="free")
    with exclusively([used]):
        with pytest.raises(DeviceError, match="scorer 'used' is still used"), exclusively([free, used], 0):
            pass
        with exclusively([free], 0):
            pass
    with exclusively([used, free], 0):
        pass


def test_a_residence_is_the_scorers_own_and_keeps_only_for_a_holder():
    scorer, holder = FakeScorer(), Ensemble([])
    residence, resident = residence_of(scorer), Resident(scorer, "cpu", scorer.fingerprint())
    assert residence_of(scorer) is residence
    assert residence_of(FakeScorer()) is not residence
    assert not residence.keep(resident)
    residence.holders.add(holder)
    assert residence.keep(resident)
    assert (residence.count("cpu"), residence.count("cuda:0"), residence.take("cuda:0")) == (1, 0, None)
    assert residence.take("cpu") is resident
    assert residence.count("cpu") == 0


@pytest.mark.parametrize(("seconds", "waited"), [(-1.0, 0.0), (2.5, 2.5), (1e300, threading.TIMEOUT_MAX)])
def test_seconds_are_those_that_a_lock_takes(seconds, waited):
    assert wait_seconds(seconds) == waited
