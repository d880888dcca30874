"""Runs that must end although a scorer does not: by the clock on the wall, and with real signals and processes."""

import functools
import json
import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble import Ensemble, FakeScorer
from lmsys_ensemble.blending.blender import MissingMemberWarning
from lmsys_ensemble.compute import hardware
from lmsys_ensemble.errors import DeviceError, ScoringError
from lmsys_ensemble.hosting import ending
from lmsys_ensemble.hosting.ending import after_deadline_s
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.runtime import items, predictor
from lmsys_ensemble.runtime.run import Run

PATIENCE = 300
"""Seconds after which a test that waits for another thread or process has failed."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(items, "MIN_CHUNK", 60)


@pytest.fixture
def released():
    """Return an event that lets stuck scorers go on; in the end they do, and no thread is left."""
    before = set(threading.enumerate())
    event = threading.Event()
    yield event
    event.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def time_is_up_after(*events):
    """Have no time pass for the runs inside before all of these events are set, and too much afterwards."""
    start = time.monotonic()

    def clock():
        is_up = all(event.is_set() for event in events) or time.monotonic() > start + PATIENCE
        return start + 3600 * is_up

    with mock.patch.object(predictor, "Run", functools.partial(Run, clock=clock)):
        yield


@pytest.fixture
def table():
    texts = {"prompt": [f"question {row}" for row in range(60)], "response_a": "yes", "response_b": "no"}
    return pd.DataFrame({"id": range(1000, 1060), **texts})


class Stuck(FakeScorer):
    """Does not return from one of its methods until it is released, whatever it is told."""

    def __init__(self, where, released, *, name="stuck", device="cpu", needs_device=False):
        super().__init__(name=name, device=device)
        self.where = where
        self.released = released
        self.needs_device = needs_device
        self.is_stuck = threading.Event()

    def fingerprint(self):
        return {"stuck": True}

    def replica(self):
        return Stuck("nowhere", self.released, name=self.name)

    def _get_stuck(self, where):
        if where == self.where:
            self.is_stuck.set()
            assert self.released.wait(PATIENCE)

    def load(self, device=None):
        self._get_stuck("load")

    def prepare(self, battles):
        self._get_stuck("prepare")
        return battles

    def score(self, battles):
        self._get_stuck("score")
        return FakeScorer().score(battles)

    def close(self):
        self._get_stuck("close")


class Quick(FakeScorer):
    """Is known to have scored all rows of the table."""

    def __init__(self, seed=0, *, name="other"):
        super().__init__(seed, name=name)
        self.n_scored = 0
        self.has_scored = threading.Event()

    def score(self, battles):
        logits = super().score(battles)
        self.n_scored += len(battles)
        if self.n_scored == 60:
            self.has_scored.set()
        return logits


def predict_in_time(stuck, *others, table, budget_s=10, **options):
    """Return the prediction of an ensemble that has time for all but what is stuck, and what it did."""
    ensemble = Ensemble([stuck, *others], devices=["cpu"] * (1 + len(others)))
    with (
        pytest.warns(MissingMemberWarning, match="lack something") as caught,
        time_is_up_after(stuck.is_stuck, *(other.has_scored for other in others)),
    ):
        predicted = ensemble.predict(table, time_budget_s=budget_s, **options)
    return predicted, ensemble.summary_, str(caught[0].message)


def journalled(folder, scorer):
    with Journal.open(folder, {"stuck": {"stuck": True}}) as journal:
        return len(journal.finished(scorer))


# --- a deadline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("where", "doing"), [("load", "loading"), ("prepare", "preparing rows"), ("score", "scoring")])
def test_a_call_that_does_not_return_is_left_behind_and_the_result_is_whole(table, tmp_path, released, where, doing):
    predicted, summary, warned = predict_in_time(
        Stuck(where, released), Quick(1), table=table, run_dir=tmp_path / "run"
    )
    assert not released.is_set()  # it came back although the call has not
    assert predicted["id"].tolist() == table["id"].tolist()
    assert predicted["fallback"].tolist() == ["stuck"] * 60
    alone = Ensemble([FakeScorer(1, name="other")]).predict_proba(table)
    assert np.array_equal(predicted.iloc[:, 1:4].to_numpy(float), alone)
    assert summary.time_was_up
    assert summary.left_behind  # one a worker: the other came to help
    assert all(call == {"scorer": "stuck", "device": "cpu", "doing": doing} for call in summary.left_behind)
    said = f"the time budget of 10 s was too short for all; scorer 'stuck' on cpu was still {doing} and was left behind"
    assert summary.explain_lack() == said
    assert warned.endswith(f"names them; {said}")
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary.to_dict()


def test_with_one_scorer_that_does_not_return_every_row_is_flagged(table, released):
    predicted, summary, _ = predict_in_time(Stuck("load", released), table=table)
    assert predicted.iloc[:, 1:4].to_numpy(float) == pytest.approx(np.full((60, 3), 1 / 3))
    assert (summary.fallback_rows, summary.time_was_up) == (60, True)


def test_what_comes_after_the_end_is_ignored_and_not_journalled(table, tmp_path, released):
    stuck = Stuck("score", released)
    ensemble = Ensemble([stuck], devices=["cpu"])
    with pytest.warns(MissingMemberWarning), time_is_up_after(stuck.is_stuck):
        members = ensemble.member_probabilities(table, time_budget_s=1, run_dir=tmp_path / "run")
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("slot 0")]
    before = (tmp_path / "run" / "journal.sqlite").read_bytes()
    released.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert np.isnan(members["stuck"]).all()
    assert (tmp_path / "run" / "journal.sqlite").read_bytes() == before
    assert journalled(tmp_path / "run", "stuck") == 0
    predicted = ensemble.predict(table, run_dir=tmp_path / "run")  # nothing of it is in the way later
    assert np.array_equal(predicted.iloc[:, 1:], Ensemble([FakeScorer()]).predict_proba(table))


def test_a_scorer_that_was_left_behind_cannot_be_used_until_its_call_returns(table, released, monkeypatch):
    monkeypatch.setattr(ending, "RETURN_S", 0.1)
    stuck = Stuck("score", released)
    predict_in_time(stuck, table=table)
    with pytest.raises(DeviceError, match=r"scorer 'stuck' on cpu, still scoring, was left behind by an earlier run"):
        Ensemble([stuck, FakeScorer(1)]).predict(table)
    Ensemble([FakeScorer(1)]).predict(table)  # others may use the CPU
    monkeypatch.setattr(ending, "RETURN_S", PATIENCE)
    released.set()
    assert len(Ensemble([stuck]).predict(table)) == 60


@pytest.mark.parametrize(("where", "elsewhere"), [("score", True), ("load", False)])
def test_a_gpu_is_lost_with_the_call_and_loading_with_a_load(table, released, monkeypatch, where, elsewhere):
    monkeypatch.setattr(ending, "RETURN_S", 0.1)
    monkeypatch.setattr(hardware, "list_devices", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(hardware, "allocated_bytes", defaultdict(int).__getitem__)
    monkeypatch.setattr(hardware, "peak_bytes", lambda device: 0)
    stuck = Stuck(where, released, device="cuda:0", needs_device=True)
    with pytest.warns(MissingMemberWarning), time_is_up_after(stuck.is_stuck):
        Ensemble([stuck]).predict(table, time_budget_s=1)

    def predict_on(device):
        return Ensemble([Stuck("nowhere", released, name="new", device=device, needs_device=True)]).predict(table)

    with pytest.raises(DeviceError, match=r"'stuck' on cuda:0, still (scoring|loading), was left behind"):
        predict_on("cuda:0")
    if elsewhere:
        assert len(predict_on("cuda:1")) == 60
    else:
        with pytest.raises(DeviceError, match="still loading, was left behind"):
            predict_on("cuda:1")
    assert len(Ensemble([FakeScorer()]).predict(table)) == 60


def test_second_passes_that_there_was_no_time_to_choose_are_named(table, released):
    predicted, summary, _ = predict_in_time(Stuck("score", released), Quick(1, name="b"), table=table, swap="adaptive")
    assert set(predicted["fallback"]) == {"stuck", "stuck, b (swapped)"}
    assert (predicted["fallback"] != "stuck").sum() == 30
    assert summary.time_was_up
    assert summary.swapped_rows == 0


def test_with_enough_time_nothing_is_said(table):
    ensemble = Ensemble([FakeScorer()])
    ensemble.predict(table, time_budget_s=600, swap="adaptive")
    assert (ensemble.summary_.time_was_up, ensemble.summary_.left_behind) == (False, [])
    assert ensemble.summary_.explain_lack() == ""


def test_rows_that_failed_are_no_want_of_time(table):
    class Bad(FakeScorer):
        def score(self, battles):
            return np.where(battles.ids.to_numpy()[:, None] == 1000, np.nan, super().score(battles)).astype("f4")

    ensemble = Ensemble([Bad(name="bad"), FakeScorer(1)])
    with pytest.warns(MissingMemberWarning, match="The column 'fallback' names them$"):
        ensemble.predict(table, time_budget_s=600, max_failed_rows=0.05)
    assert not ensemble.summary_.time_was_up


# --- a failure ------------------------------------------------------------------------------------------------------


def test_a_failure_is_raised_although_another_scorer_does_not_return(table, released, monkeypatch, caplog):
    monkeypatch.setattr(ending, "AFTER_FAILURE_S", 0.1)
    stuck = Stuck("score", released)

    class Broken(FakeScorer):
        def score(self, battles):
            assert stuck.is_stuck.wait(PATIENCE)
            raise RuntimeError("boom")

    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ScoringError, match="'broken' on cpu failed: RuntimeError: boom"),
    ):
        Ensemble([stuck, Broken(name="broken")], devices=["cpu"] * 2).predict(table)
    assert "scorer 'stuck' on cpu, still scoring, was left behind; what it computes is ignored" in caplog.text


# --- signals --------------------------------------------------------------------------------------------------------

STUCK_FOR_EVER = """
import signal, sys, threading
import pandas as pd
from lmsys_ensemble import Ensemble, FakeScorer
from lmsys_ensemble.hosting import ending

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
ending.AFTER_SIGNAL_S, ending.EXIT_S = float(sys.argv[1]), 0.1


class Stuck(FakeScorer):
    def score(self, battles):
        print("scoring", flush=True)
        threading.Event().wait()


table = pd.DataFrame({"id": [1], "prompt": "p", "response_a": "a", "response_b": "b"})
try:
    Ensemble([Stuck(name="stuck")]).predict(table)
except BaseException as error:
    print(type(error).__name__, error.__notes__, flush=True)
    raise
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize(
    ("sent", "code", "grace_s", "n_signals"),
    [("SIGINT", -2, "0.2", 1), ("SIGINT", -2, "3600", 2), ("SIGTERM", 143, "3600", 2)],
)
def test_a_signal_ends_a_run_whose_scorer_does_not_return(sent, code, grace_s, n_signals):
    command = [sys.executable, "-c", textwrap.dedent(STUCK_FOR_EVER), grace_s]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "scoring\n"
        process.send_signal(getattr(signal, sent))
        if n_signals == 2:
            with pytest.raises(subprocess.TimeoutExpired):  # patient until it is asked again
                process.wait(1)
            process.send_signal(getattr(signal, sent))
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == code, errors
    name = {"SIGINT": "KeyboardInterrupt", "SIGTERM": "Terminated"}[sent]
    assert output.startswith(f"{name} [\"scorer 'stuck' on cpu, still scoring, was left behind\", 'Pass run_dir=")


# --- the command line and the end of the process --------------------------------------------------------------------

CLI = """
import functools, sys, threading, time
import torch
from lmsys_ensemble import FakeScorer
from lmsys_ensemble.cli import main
from lmsys_ensemble.compute import hardware
from lmsys_ensemble.hosting import ending
from lmsys_ensemble.runtime import predictor
from lmsys_ensemble.runtime.run import Run

is_stuck = threading.Event()
start = time.monotonic()
predictor.Run = functools.partial(Run, clock=lambda: start + 3600 * is_stuck.is_set())  # time is up when it is stuck
if sys.argv[2] == "for_ever":
    ending.EXIT_S = 0.1
hardware.list_devices = lambda: ["cuda:0"]
hardware.allocated_bytes = hardware.peak_bytes = lambda device: 0
ones = torch.ones(700, 700)


def for_ever(*_):
    is_stuck.set()
    threading.Event().wait()


def in_torch(*_):
    is_stuck.set()
    while True:
        torch.mm(ones, ones)


def until_after_the_end(*_):
    is_stuck.set()
    ended = time.monotonic() + 3
    while time.monotonic() < ended:
        torch.mm(ones, ones)


setattr(FakeScorer, sys.argv[1], globals()[sys.argv[2]])
FakeScorer.needs_device = sys.argv[3] != "cpu"
sys.exit(main(["predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv", *sys.argv[4:]]))
"""


def run_cli(folder, *arguments):
    table = pd.DataFrame(
        {"id": range(50), "prompt": "p", "response_a": [f"a{n}" for n in range(50)], "response_b": "b"}
    )
    table.to_csv(folder / "test.csv", index=False)
    (folder / "ensemble.yaml").write_text(f"scorers: [{{type: fake, device: '{arguments[2]}'}}]")
    command = [sys.executable, "-c", textwrap.dedent(CLI), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize(
    ("method", "how", "device", "doing"),
    [
        ("load", "for_ever", "cpu", "loading"),
        ("load", "until_after_the_end", "cpu", "loading"),
        ("score", "in_torch", "cpu", "scoring"),
        ("prepare", "for_ever", "cuda:0", "preparing rows"),
        ("prepare", "in_torch", "cuda:0", "preparing rows"),
    ],
)
def test_the_command_line_says_that_time_was_up_and_ends(tmp_path, method, how, device, doing):
    done = run_cli(tmp_path, method, how, device, "--time-budget", "2", "--json")
    assert done.returncode == 3, done.stderr
    values = json.loads(done.stdout)
    assert (values["rows"], values["fallback_rows"], values["time_was_up"]) == (50, 50, True)
    said = (
        "time was up: 50 of 50 rows lack something; the time budget of 2 s was too short for all; "
        f"scorer 'fake' on {device} was still {doing} and was left behind"
    )
    assert said in done.stderr.splitlines()
    predicted = pd.read_csv(tmp_path / "p.csv")
    assert predicted["id"].tolist() == list(range(50))
    assert predicted["fallback"].tolist() == ["fake"] * 50


# --- parts ----------------------------------------------------------------------------------------------------------


def test_after_a_deadline_there_is_a_tenth_of_the_budget_within_limits():
    assert [after_deadline_s(budget_s) for budget_s in (1, 20, 36_000)] == [0.5, 2.0, 5.0]


# --- kept loaded, and left behind -----------------------------------------------------------------------------------


class Kept(FakeScorer):
    """Cannot be shared; one call of `score` waits, and may fail then. Writes what is done with it into a log."""

    shareable = False

    def __init__(self, released, *, error=None, name="kept"):
        super().__init__(name=name)
        self.released = released
        self.error = error
        self.waits = False
        self.is_waiting = threading.Event()
        self.log = []

    def fingerprint(self):
        return {"kept": True}

    def replica(self):
        raise AssertionError("there is one slot")

    def load(self, device=None):
        self.log.append("load")

    def close(self):
        self.log.append("close")

    def score(self, battles):
        if self.waits:
            self.waits = False
            self.log.append("wait")
            self.is_waiting.set()
            assert self.released.wait(PATIENCE)
            self.log.append("return")
            if self.error is not None:
                raise self.error
        return super().score(battles)


def leave_behind(scorer, table):
    """Return an ensemble that keeps a scorer loaded, one call of which has been left behind."""
    ensemble = Ensemble([scorer], devices=["cpu"]).load()
    scorer.waits = True
    with pytest.warns(MissingMemberWarning), time_is_up_after(scorer.is_waiting):
        ensemble.predict(table, time_budget_s=0.5)
    return ensemble


@pytest.mark.parametrize("other", [False, True])
def test_a_scorer_that_was_left_behind_is_not_loaded_again_before_its_call_returns(table, released, monkeypatch, other):
    scorer = Kept(released)
    ensemble = leave_behind(scorer, table)
    loader = Ensemble([scorer], devices=["cpu"]) if other else ensemble
    monkeypatch.setattr(ending, "RETURN_S", 0.1)
    with pytest.raises(DeviceError, match="was left behind by an earlier run"):
        loader.load()
    monkeypatch.setattr(ending, "RETURN_S", PATIENCE)
    released.set()
    loader.load()
    ensemble.close()
    loader.close()
    assert scorer.log == ["load", "wait", "return", "close"]


def test_a_scorer_that_fails_after_it_was_left_behind_is_freed_and_loaded_again(table, released, monkeypatch):
    scorer = Kept(released, error=RuntimeError("the device is lost"))
    ensemble = leave_behind(scorer, table)
    monkeypatch.setattr(ending, "RETURN_S", PATIENCE)
    released.set()
    ensemble.predict(table)
    ensemble.close()
    assert scorer.log == ["load", "wait", "return", "close", "load", "close"]
