import copy
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from lmsys_ensemble import Blender, ClassifierScorer, Ensemble, FakeScorer, FaultyScorer, LlamaScorer, SavedScorer
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.errors import ConfigError, DeviceError, ScoringError
from lmsys_ensemble.hosting.residence import residence_of
from lmsys_ensemble.scorers.base import NoProgress
from tests.hosting.watched import Failing, Watched, count, events
from tests.tiny import make_battles as make_real_battles
from tests.tiny import make_tokenizer, save_adapter

PATIENCE = 300


@pytest.fixture
def pair(log):
    return Ensemble([Watched(0, log=log, name="one"), Watched(1, log=log, name="two")])


# --- loaded once ----------------------------------------------------------------------------------------------------


def test_a_with_statement_loads_once_for_all_calls_and_frees_at_its_end(pair, log, labelled_table):
    alone = Ensemble([FakeScorer(0, name="one"), FakeScorer(1, name="two")])
    with pair as entered:
        assert entered is pair
        assert log == [("one", "load"), ("two", "load")]
        assert_frame_equal(pair.predict(labelled_table), alone.predict(labelled_table))
        pair.predict_proba(labelled_table)
        pair.member_probabilities(labelled_table)
        pair.evaluate(labelled_table, swap=True)
        pair.blender = Blender("linear")
        pair.fit(labelled_table)
        assert [count(log, event) for event in ("load", "close")] == [2, 0]
        assert count(log, "score") == 2 * 5  # an evaluation scores both orders in one run
    assert [count(log, event) for event in ("load", "close")] == [2, 2]


def test_load_and_close_can_be_called_at_any_time_and_again(pair, log, battles_table):
    pair.close()
    assert pair.load() is pair
    pair.load()
    pair.predict(battles_table)
    pair.close()
    pair.close()
    assert [count(log, event) for event in ("load", "close")] == [2, 2]
    pair.predict(battles_table)
    assert events(log, "one")[-3:] == ["load", "score", "close"]
    pair.load()
    pair.predict(battles_table)
    pair.close()
    assert [count(log, event) for event in ("load", "close")] == [6, 6]


def test_one_name_makes_an_ensemble_of_a_folder_and_loads_one_that_is_there(tmp_path, battles_table):
    ensemble = Ensemble([FakeScorer(4)])
    ensemble.save(tmp_path)
    made = Ensemble.load(tmp_path)
    assert_frame_equal(made.load().predict(battles_table), ensemble.predict(battles_table))
    with pytest.raises(ConfigError, match=r"ensemble.load\(\) takes no folder"):
        made.load(tmp_path)
    assert "folder that `save` wrote" in Ensemble.load.__doc__


def test_without_rows_nothing_changes(pair, log, battles_table):
    with pair:
        pair.predict(battles_table[:0])
        pair.predict(battles_table)
    assert events(log, "one") == ["load", "score", "close"]


def test_a_file_of_probabilities_is_read_anew(battles_table, tmp_path):
    path = tmp_path / "saved.csv"
    Ensemble([FakeScorer(1)]).predict(battles_table).to_csv(path, index=False)
    with Ensemble([SavedScorer(str(path))]) as ensemble:
        first = ensemble.predict_proba(battles_table)
        Ensemble([FakeScorer(2)]).predict(battles_table).to_csv(path, index=False)
        assert not np.allclose(ensemble.predict_proba(battles_table), first)


# --- what changes meanwhile -----------------------------------------------------------------------------------------


def test_settings_that_change_are_loaded_anew(pair, log, battles_table):
    with pair:
        pair.scorers[0].seed = 5
        changed = pair.predict_proba(battles_table)
        assert events(log, "one") == ["load", "close", "load", "score"]
        assert events(log, "two") == ["load", "score"]
    assert np.array_equal(changed, Ensemble([FakeScorer(5), FakeScorer(1, name="two")]).predict_proba(battles_table))


def test_scorers_that_are_replaced_are_freed_with_the_others(pair, log, battles_table):
    pair.load()
    pair.scorers[0] = Watched(3, log=log, name="three")
    pair.predict(battles_table)
    assert events(log, "three") == ["load", "score", "close"]  # nobody has asked to keep it
    pair.load()
    pair.close()
    assert count(log, "close") == count(log, "load")
    assert count(log, "load", "three") == 2


@pytest.fixture
def adapter(checkpoints, tmp_path):
    return save_adapter(checkpoints.base("llama"), tmp_path / "adapter")


def tiny_scorer(checkpoints, adapter, **options):
    return LlamaScorer(
        str(checkpoints.base("llama")), adapter=str(adapter), device="cpu", template="turns", max_tokens=160,
        pad_token_id=make_tokenizer().pad_token_id, **options,
    )  # fmt: skip


def test_an_adapter_that_is_trained_again_meanwhile_gives_its_new_numbers(checkpoints, adapter):
    battles = make_real_battles(6)
    with Ensemble([tiny_scorer(checkpoints, adapter)]) as ensemble:
        first = ensemble.predict_proba(battles)
        assert np.array_equal(ensemble.predict_proba(battles), first)
        file = adapter / "adapter_model.safetensors"
        weights = {name: tensor.clone() * 1.5 for name, tensor in load_file(file).items()}
        save_file(weights, file)
        second = ensemble.predict_proba(battles)
    assert not np.allclose(first, second)
    assert np.array_equal(second, Ensemble([tiny_scorer(checkpoints, adapter)]).predict_proba(battles))


def test_what_is_kept_gives_to_the_last_bit_what_is_loaded_anew(checkpoints, adapter):
    battles = make_real_battles(40)
    scorers = [tiny_scorer(checkpoints, adapter), ClassifierScorer(str(checkpoints.classifier("llama")), name="head")]
    expected = Ensemble(scorers).predict_proba(battles)
    with Ensemble(scorers) as ensemble:
        model = scorers[0]._forward.model
        for _ in range(2):
            assert np.array_equal(ensemble.predict_proba(battles), expected)
            assert scorers[0]._forward.model is model
    assert scorers[0]._forward is None


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_scorer_that_fails_is_freed_and_loaded_again_and_the_others_stay(log, battles_table):
    scorers = [Watched(log=log, name="good"), Failing(log=log, name="bad")]
    with Ensemble(scorers) as ensemble:
        scorers[1].failing = "score"
        with pytest.raises(ScoringError, match="scorer 'bad' on cpu failed: RuntimeError: told to"):
            ensemble.predict(battles_table)
        assert [event for event in events(log, "bad") if event != "score"] == ["load", "close"]
        scorers[1].failing = ""
        ensemble.predict(battles_table)
        ensemble.predict(battles_table)
        assert events(log, "bad") == ["load", "close", "load", "score", "score"]
        assert count(log, "load", "good") == 1
    assert count(log, "close", "good") == 1
    assert count(log, "close", "bad") == 2


def test_what_a_deadline_stops_stays_loaded(log, make_battles):
    battles = make_battles(*[(f"question {i}" * 300, "yes", "no") for i in range(400)])
    with Ensemble([Watched(log=log, seconds_per_row=0.02)], devices=["cpu"]) as ensemble:
        with pytest.warns(UserWarning, match="lack"):
            ensemble.predict(battles, time_budget_s=0.5)
        assert (count(log, "load"), count(log, "close")) == (1, 0)
        assert isinstance(ensemble.scorers[0].progress, NoProgress)
        ensemble.predict(battles[:3])
    assert (count(log, "load"), count(log, "close")) == (1, 1)


_INTERRUPTED = """
import sys, threading, time
from lmsys_ensemble import Ensemble, FakeScorer, parse_battles
import pandas as pd

class Loud(FakeScorer):
    def load(self, device=None): print("load", flush=True)
    def close(self): print("close", flush=True)
    def score(self, battles):
        print("score", flush=True)
        return super().score(battles)

table = pd.DataFrame({"id": range(500), "prompt": [f"q{i}" for i in range(500)], "response_a": "y", "response_b": "n"})
with Ensemble([Loud(seconds_per_row=0.02)], progress="off") as ensemble:
    try:
        ensemble.predict(table)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    ensemble.predict(table[:2])
print(threading.active_count(), "thread", flush=True)
"""


def test_ctrl_c_ends_a_call_and_keeps_the_models_for_the_next():
    command = [sys.executable, "-u", "-c", textwrap.dedent(_INTERRUPTED)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline().strip() for _ in range(2)]
        assert lines == ["load", "score"]
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    assert output.split("\n") == ["interrupted", "score", "close", "1 thread", ""], errors


# --- several ensembles, several threads -----------------------------------------------------------------------------


def in_threads(*calls):
    """Call functions in threads of their own, all at once; return what they return or raise."""
    results = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def work(position):
        start.wait(PATIENCE)
        try:
            results[position] = calls[position]()
        except BaseException as error:
            results[position] = error

    threads = [threading.Thread(target=work, args=(position,), daemon=True) for position in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "the threads wait for each other"
    return results


class Alone(FakeScorer):
    """Notes when two threads of different runs score with it at the same time."""

    def __init__(self, seed=0, *, name="alone", seconds_per_row=0.002):
        super().__init__(seed, name=name, seconds_per_row=seconds_per_row)
        self.runs = set()
        self.met = False

    def score(self, battles):
        self.runs.add(id(self.progress))
        before = self.progress
        try:
            return super().score(battles)
        finally:
            self.met = self.met or self.progress is not before


@pytest.mark.parametrize("kept", [False, True])
def test_one_ensemble_in_several_threads_gives_each_its_own_result(make_battles, kept):
    tables = [make_battles(*[(f"{i} of {k}", "yes", "no") for i in range(40)]) for k in range(4)]
    ensemble = Ensemble([Alone(0, name="one"), Alone(1, name="two")])
    if kept:
        ensemble.load()
    results = in_threads(*[lambda table=table: ensemble.predict_proba(table) for table in tables])
    for table, result in zip(tables, results, strict=True):
        assert np.array_equal(result, Ensemble([FakeScorer(0), FakeScorer(1, name="two")]).predict_proba(table))
    assert not any(scorer.met for scorer in ensemble.scorers)
    ensemble.close()


def test_a_failure_in_one_thread_takes_nothing_from_the_other(make_battles):
    long = [(f"question {i}" * 300, "yes", "no") for i in range(60)]
    tables = [make_battles(*long), make_battles(*long[::-1])]
    for _ in range(3):
        scorers = [FaultyScorer(0, name="one", raise_at=100, seconds_per_row=0.002), Alone(1, name="two")]
        ensemble = Ensemble(scorers)
        results = in_threads(*[lambda table=table, e=ensemble: e.predict_proba(table) for table in tables])
        failed = [isinstance(result, ScoringError) for result in results]
        assert sorted(failed) == [False, True]
        whole = failed.index(False)
        expected = Ensemble([FakeScorer(0), FakeScorer(1, name="two")]).predict_proba(tables[whole])
        assert np.array_equal(results[whole], expected)


def test_what_is_wrong_is_found_before_anything_is_loaded(log, pair):
    twins = Ensemble([*pair.scorers, FakeScorer(2, name="one")])
    with pytest.raises(ConfigError, match="one occurs more than once"):
        twins.load()
    assert log == []


def test_a_prediction_waits_for_a_fit_in_another_thread(labelled_table):
    class SlowBlender(Blender):
        is_fitting = False

        def fit(self, *arguments, **options):
            self.is_fitting = True
            time.sleep(0.3)
            super().fit(*arguments, **options)
            self.is_fitting = False

        def predict_proba(self, probabilities, **options):
            assert not self.is_fitting
            return super().predict_proba(probabilities, **options)

    ensemble = Ensemble([FakeScorer(0, name="one"), FakeScorer(1, name="two")], SlowBlender("linear"))
    ensemble.fit(labelled_table)
    done = threading.Event()

    def fit():
        try:
            ensemble.fit(labelled_table)
        finally:
            done.set()

    def predict():
        while not done.is_set():
            ensemble.predict(labelled_table)

    assert in_threads(fit, predict, predict) == [None] * 3


def test_two_ensembles_that_share_scorers_in_another_order_do_not_wait_for_each_other_for_ever(make_battles):
    table = make_battles(*[(f"question {i}", "yes", "no") for i in range(10)])
    one, two = Alone(0, name="one"), Alone(1, name="two")
    ensembles = [Ensemble([one, two]), Ensemble([two, one])]

    def use(ensemble):
        with ensemble:
            return [ensemble.predict_proba(table) for _ in range(10)]

    results = in_threads(*[lambda ensemble=ensemble: use(ensemble) for ensemble in ensembles * 2])
    expected = Ensemble([FakeScorer(0), FakeScorer(1, name="two")]).predict_proba(table)
    for result in results:
        assert np.allclose(result, expected, atol=1e-12)
    assert not one.met
    assert not two.met
    assert residence_of(one).residents == residence_of(two).residents == []


def test_scorers_that_nobody_shares_do_not_wait(make_battles):
    meeting = threading.Barrier(2)

    class Meeting(FakeScorer):
        def score(self, battles):
            meeting.wait(PATIENCE)
            return super().score(battles)

    table = make_battles(("a", "b", "c"))
    results = in_threads(*[lambda: Ensemble([Meeting()]).predict_proba(table) for _ in range(2)])
    assert [result.shape for result in results] == [(1, 3)] * 2


def test_real_models_in_two_threads_give_what_they_give_alone(checkpoints, adapter):
    battles = [make_real_battles(30, seed=seed) for seed in range(2)]
    shared = tiny_scorer(checkpoints, adapter)
    head = ClassifierScorer(str(checkpoints.classifier("gemma3")), name="head", device="cpu")
    expected = [Ensemble([shared, head]).predict_proba(rows) for rows in battles]
    ensembles = Ensemble([shared, head]), Ensemble([head, shared])
    first, second = in_threads(
        lambda: ensembles[0].predict_proba(battles[0]), lambda: ensembles[1].predict_proba(battles[1])
    )
    assert np.array_equal(first, expected[0])
    assert np.allclose(second, expected[1], atol=1e-12)


@pytest.mark.parametrize("own", [True, False], ids=["the same ensemble", "another ensemble"])
def test_a_time_budget_holds_while_another_thread_uses_the_scorer(make_battles, own):
    begun, released = threading.Event(), threading.Event()

    class Long(FakeScorer):
        def score(self, battles):
            begun.set()
            assert released.wait(PATIENCE)
            return super().score(battles)

    scorer, table = Long(name="long"), make_battles(("a", "b", "c"))
    ensemble = Ensemble([scorer])
    busy = threading.Thread(target=ensemble.predict, args=(table,))
    busy.start()
    assert begun.wait(PATIENCE)
    what = "this ensemble" if own else "scorer 'long'"
    try:
        with pytest.raises(DeviceError, match=f"{what} is still used by a call in another thread, and time_budget_s"):
            (ensemble if own else Ensemble([scorer])).predict(table, time_budget_s=0.2)
    finally:
        released.set()
        busy.join(PATIENCE)
    assert len(ensemble.predict(table, time_budget_s=1e300)) == 1


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_has_settings_and_the_fitted_blender_and_nothing_loaded(checkpoints, adapter, duplicate, labelled_table):
    scorers = [tiny_scorer(checkpoints, adapter, name="llama"), FakeScorer(3)]
    ensemble = Ensemble(scorers, Blender(method="linear"), devices=["cpu"], progress="off")
    ensemble.fit(labelled_table)
    with ensemble:
        expected = ensemble.predict_proba(labelled_table)
        copied = duplicate(ensemble)
        assert copied.scorers[0]._forward is None
        assert residence_of(copied.scorers[0]).residents == []
    assert (copied.devices, copied.progress, copied.task) == (["cpu"], "off", ensemble.task)
    assert [scorer.settings() for scorer in copied.scorers] == [scorer.settings() for scorer in scorers]
    assert np.array_equal(copied.predict_proba(labelled_table), expected)
    with copied:
        assert scorers[0]._forward is None


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_scorer_that_is_loaded_can_be_copied_without_its_model(checkpoints, adapter, duplicate):
    battles = make_real_battles(5)
    with tiny_scorer(checkpoints, adapter, dtype="float32") as scorer:
        expected = scorer.score(battles)
        copied = duplicate(scorer)
        assert copied._forward is None
        assert copied.settings() == scorer.settings()
    with copied:
        assert np.array_equal(copied.score(battles), expected)


@pytest.mark.parametrize("scorer", [FakeScorer(2, n_classes=2), FaultyScorer(1, raise_at=7), SavedScorer("a.csv")])
def test_the_other_scorers_can_be_pickled(scorer):
    copied = pickle.loads(pickle.dumps(scorer))
    assert type(copied) is type(scorer)
    assert copied.settings() == scorer.settings()


def test_parsed_battles_can_be_pickled(battles_table):
    battles = parse_battles(battles_table)
    assert pickle.loads(pickle.dumps(battles)).prompts == battles.prompts
