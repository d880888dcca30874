import logging
import threading
from collections import defaultdict

import numpy as np
import pytest

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.errors import InputError, ScoringError
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.runtime import items
from lmsys_ensemble.runtime.run import Run
from lmsys_ensemble.scorers.base import NoProgress
from lmsys_ensemble.testing.fake import FakeScorer

PATIENCE = 300
"""Seconds after which a test that waits for another thread or process has failed."""


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def battles(battles_table):
    return parse_battles(battles_table)


@pytest.fixture
def many_battles(make_battles):
    return make_battles(*[(f"question {i}", "yes", "no") for i in range(2_000)])


@pytest.fixture
def on_gpus(monkeypatch):
    """Pretend that there are two GPUs, and return a function that sets what is taken of their memory."""
    taken = defaultdict(int)
    monkeypatch.setattr(hardware, "list_devices", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(hardware, "allocated_bytes", taken.__getitem__)
    monkeypatch.setattr(hardware, "peak_bytes", lambda device: 0)

    def take(device, n_bytes):
        taken[device] += n_bytes

    return take


def score_all(scorers, battles, display="off", **settings):
    """Return every scorer's probabilities."""
    return Run(scorers, battles, display=display, **settings).execute().members


class Watched(FakeScorer):
    """Writes what is done with it, and in which thread, into a log that it shares with others."""

    def __init__(self, seed=0, *, log, name="watched", device="cpu", seconds_per_row=0.0):
        super().__init__(seed, name=name, device=device, seconds_per_row=seconds_per_row)
        self.needs_device = device != "cpu"
        self.log = log
        self.started = threading.Event()

    def note(self, event):
        self.started.set()
        self.log.append((self.name, event, threading.current_thread()))

    def load(self, device=None):
        self.note(f"load on {device}")

    def score(self, battles):
        self.note("score")
        logits = super().score(battles)
        self.note("scored")
        return logits

    def close(self):
        self.note("close")


class Broken(Watched):
    """Fails where it is told to, once another scorer has started."""

    def __init__(self, where, error, *, log, after=None, name="broken", device="cpu"):
        super().__init__(log=log, name=name, device=device)
        self.where = where
        self.error = error
        self.after = after

    def note(self, event):
        super().note(event)
        if event.startswith(self.where):
            assert self.after is None or self.after.started.wait(PATIENCE)
            raise self.error


class Returning(FakeScorer):
    """Returns what it is told to; an array of as many rows as there are battles, in the order of their ids."""

    def __init__(self, value, *, name="odd"):
        super().__init__(name=name)
        self.value = value

    def score(self, battles):
        if np.shape(self.value) == (len(battles), 3):
            return self.value[np.searchsorted(np.sort(battles.ids), battles.ids)]
        return self.value


def events(log, name):
    return [event for scorer, event, _ in log if scorer == name]


# --- who runs where and when ----------------------------------------------------------------------------------------


def test_logits_come_in_the_order_of_scorers_and_rows(battles):
    scorers = [FakeScorer(seed, name=str(seed), seconds_per_row=0.01 * (3 - seed)) for seed in range(4)]
    logits = score_all(scorers, battles, "off")
    assert len(logits) == 4
    for scorer, values in zip(scorers, logits, strict=True):
        assert np.array_equal(values, softmax(FakeScorer(scorer.seed).score(battles)))


def test_a_scorer_is_loaded_run_and_freed_in_one_thread_of_its_own(battles):
    log = []
    score_all([Watched(log=log, name="one"), Watched(log=log, name="two")], battles, "off")
    threads = {}
    for name in ("one", "two"):
        assert events(log, name) == ["load on cpu", "score", "scored", "close"]
        (threads[name],) = {thread for scorer, _, thread in log if scorer == name}
    assert threads["one"] is not threads["two"]
    assert threading.main_thread() not in threads.values()


def test_scorers_on_different_devices_and_on_the_cpu_run_at_the_same_time(battles, on_gpus):
    meeting = threading.Barrier(3)

    class Meeting(FakeScorer):
        @property
        def needs_device(self):
            return self.device != "cpu"

        def score(self, battles):
            meeting.wait(PATIENCE)
            return super().score(battles)

    score_all(
        [Meeting(name=name, device=device) for name, device in (("a", "cpu"), ("b", "cpu"), ("c", "cuda:0"))],
        battles,
        "off",
    )


def test_scorers_on_one_gpu_run_one_after_the_other_each_freed_before_the_next_is_loaded(battles, on_gpus):
    log = []
    logits = score_all([Watched(seed, log=log, name=str(seed), device="cuda:0") for seed in (0, 1, 2)], battles, "off")
    assert [(name, event) for name, event, _ in log] == [
        (name, event) for name in "012" for event in ("load on cuda:0", "score", "scored", "close")
    ]
    assert len({thread for _, _, thread in log}) == 1
    for seed, values in enumerate(logits):
        assert np.array_equal(values, softmax(FakeScorer(seed).score(battles)))


@pytest.mark.parametrize("n_bytes", [2**30, 1000])
def test_memory_that_a_closed_scorer_leaves_taken_on_a_gpu_is_said(battles, on_gpus, caplog, n_bytes):
    leaky = Watched(log=[], name="leaky", device="cuda:0")
    leaky.load = lambda device: on_gpus(device, 2**31)
    leaky.close = lambda: on_gpus("cuda:0", n_bytes - 2**31)
    with caplog.at_level(logging.WARNING, logger="lmsys_ensemble"):
        score_all([leaky, Watched(log=[], name="neat", device="cuda:1")], battles)
    expected = [f"leaky left {n_bytes} bytes of cuda:0 taken after it was closed"]
    assert [record.getMessage() for record in caplog.records] == (expected if n_bytes > 2**20 else [])


def test_rows_are_prepared_in_another_thread_while_a_gpu_computes(make_battles, on_gpus, monkeypatch):
    monkeypatch.setattr(items, "MIN_CHUNK", 30)
    overlapping = threading.Event()
    prepared_in = []

    class Preparing(Watched):
        def prepare(self, battles):
            prepared_in.append(threading.current_thread())
            if len(prepared_in) == 2:
                overlapping.set()
            return battles

        def score_prepared(self, prepared):
            assert overlapping.wait(PATIENCE)  # the next chunk is being prepared meanwhile
            return FakeScorer.score(self, prepared)

    battles = make_battles(*[(f"question {row}", "yes", "no") for row in range(40)])
    (probabilities,) = score_all([Preparing(log=[], device="cuda:0")], battles)
    assert np.array_equal(probabilities, softmax(FakeScorer().score(battles)))
    assert len(set(prepared_in)) == 2


def test_a_failure_while_rows_are_prepared_names_them(make_battles, on_gpus, monkeypatch):
    monkeypatch.setattr(items, "MIN_CHUNK", 30)

    class Unprepared(Watched):
        def prepare(self, battles):
            if any(battle.prompt == ("question 20",) for battle in battles):
                raise ValueError("no such token")
            return battles

    battles = make_battles(*[(f"question {row}", "yes", "no") for row in range(40)])
    with pytest.raises(ScoringError, match="'watched' on cuda:0 failed: ValueError: no such token") as caught:
        score_all([Unprepared(log=[], device="cuda:0")], battles)
    assert 20 in caught.value.row_ids


def test_nobody_listens_to_a_scorer_after_the_run(battles):
    scorer = FakeScorer()
    score_all([scorer], battles, "off")
    assert isinstance(scorer.progress, NoProgress)


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["load", "score", "close"])
@pytest.mark.parametrize("error", [RuntimeError("CUDA error: boom"), SystemExit(3), KeyError("score.weight")], ids=repr)
def test_a_failing_scorer_stops_the_others_and_is_named_with_its_device(many_battles, on_gpus, where, error):
    log = []
    slow = Watched(log=log, name="slow", seconds_per_row=0.01)
    waiting = Watched(log=log, name="waiting", device="cuda:1")
    broken = Broken(where, error, log=log, after=slow, device="cuda:1")
    battles = many_battles[:5] if where == "close" else many_battles
    with pytest.raises(ScoringError, match=r"scorer 'broken' on cuda:1 failed: ") as caught:
        score_all([slow, broken, waiting], battles, "off")
    assert type(error).__name__ in str(caught.value)
    assert "The other scorers were stopped" in str(caught.value)
    assert (caught.value.scorer, caught.value.device) == ("broken", "cuda:1")
    assert caught.value.__cause__ is error
    assert events(log, "slow")[-1] == "close"
    assert where == "close" or "scored" not in events(log, "slow")
    assert events(log, "broken")[-1] == "close"
    assert events(log, "waiting") == []  # it would have been next on that device


def test_an_error_of_ours_is_passed_on_with_a_note_that_names_the_scorer(battles):
    error = InputError("7 ids are missing")
    with pytest.raises(InputError, match="7 ids are missing") as caught:
        score_all([FakeScorer(), Broken("load", error, log=[])], battles, "off")
    assert caught.value is error
    assert any("scorer 'broken' on cpu" in note for note in caught.value.__notes__)


def test_a_scorer_that_hides_exceptions_cannot_hide_the_stop(many_battles):
    class Stubborn(FakeScorer):
        def score(self, battles):
            for _ in battles:
                try:
                    super().score(battles[:1])
                except Exception:
                    continue
            finished.append(self.name)
            return np.zeros((len(battles), 3), np.float32)

    started = threading.Event()

    class LateFailure(FakeScorer):
        def score(self, battles):
            started.wait(PATIENCE)
            raise RuntimeError("boom")

    finished = []
    stubborn = Stubborn(name="stubborn", seconds_per_row=0.01)
    stubborn.load = lambda device: started.set()
    with pytest.raises(ScoringError, match="'late' on cpu failed: RuntimeError: boom"):
        score_all([stubborn, LateFailure(name="late")], many_battles, "off")
    assert not finished


def test_a_run_after_a_failed_one_is_whole(battles):
    broken = Broken("score", RuntimeError("boom"), log=[])
    scorers = [FakeScorer(1), broken]
    with pytest.raises(ScoringError):
        score_all(scorers, battles, "off")
    broken.where = "never"
    assert np.array_equal(score_all(scorers, battles, "off")[0], softmax(FakeScorer(1).score(battles)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((4, 3), np.float32), r"shape \(4, 3\), expected \(5, 3\)"),
        (np.zeros((5, 2), np.float32), r"shape \(5, 2\), expected \(5, 3\)"),
        (np.zeros(15, np.float32), r"shape \(15,\)"),
        (None, r"shape \(\)"),
        (np.full((5, 3), "x"), "failed: ValueError"),
    ],
    ids=["rows missing", "a class missing", "flat", "nothing", "no numbers"],
)
def test_what_are_no_logits_is_refused(battles, value, words):
    with pytest.raises(ScoringError, match=words) as caught:
        score_all([Returning(value)], battles, "off")
    assert (caught.value.scorer, caught.value.device) == ("odd", "cpu")
    assert "'odd' on cpu" in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "dtype"), [(np.nan, "f4"), (np.inf, "f4"), (-np.inf, "f4"), (1e39, "f8"), (-1e300, "f8")]
)
def test_logits_that_are_not_finite_as_they_are_kept_are_refused_with_the_ids_of_their_rows(battles, fault, dtype):
    logits = np.zeros((5, 3), dtype)
    logits[[0, 4], 2] = fault  # the smallest and the greatest id
    with pytest.raises(ScoringError, match=r"for 2 of 5 rows \(ids 4294967299, 7\); try dtype=") as caught:
        score_all([Returning(logits)], battles, "off")
    assert caught.value.row_ids == (4_294_967_299, 7)


@pytest.mark.parametrize("error", [None, RuntimeError("boom")])
def test_bars_are_closed_whether_the_work_is_done_or_not(battles, capsys, error):
    if error is None:
        score_all([FakeScorer()], battles, "bars")
    else:
        with pytest.raises(ScoringError, match="boom"):
            score_all([Broken("score", error, log=[])], battles, "bars")
    written = capsys.readouterr().err
    assert written.endswith("\n")
    assert ("5/5 rows" in written) == (error is None)
    assert ("broken (cpu): stopped" in written) == (error is not None)
