import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from lmsys_ensemble import Ensemble, errors
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.errors import ConfigError, ContractError, ModelError, RegistryError
from lmsys_ensemble.hosting.scope import StopScoring
from lmsys_ensemble.scorers.base import NoProgress
from lmsys_ensemble.scorers.registry import build_scorer, scorer_names, scorer_type
from lmsys_ensemble.testing.check import check_scorer
from lmsys_ensemble.testing.fake import FakeScorer
from lmsys_ensemble.testing.faults import FaultyScorer

PATIENCE = 300
"""Seconds after which a test that waits for another thread or process has failed."""


@pytest.fixture
def battles(battles_table):
    return parse_battles(battles_table)


class Listener(NoProgress):
    """Counts rows, and stops the scorer when it has been asked a few times."""

    def __init__(self, patience=None):
        self.rows = 0
        self.patience = patience

    def advance(self, n_rows, n_tokens):
        self.rows += n_rows
        if self.patience is not None and not n_rows:
            self.patience -= 1
            if self.patience < 0:
                raise StopScoring


def test_without_a_fault_it_is_the_fake_scorer(battles):
    check_scorer(FaultyScorer(3))
    check_scorer(FaultyScorer(3, scale=2.0, n_classes=2, name="mine"), battles, tolerance=0)
    for settings in ({}, {"scale": 2.5}, {"n_classes": 2}):
        expected = FakeScorer(3, **settings).score(battles)
        assert np.array_equal(FaultyScorer(3, **settings).score(battles), expected)
        distant = FaultyScorer(
            3, raise_at=99, hang_at=99, die_at=99, out_of_memory_above=10**6, nan_for="§", **settings
        )
        assert np.array_equal(distant.score(battles), expected)


def test_settings_are_stored_by_name_and_json_can_hold_them():
    settings = {"seed": 1, "raise_at": 4, "error": "OSError", "out_of_memory_above": 10, "nan_for": "x", "hang_at": 6,
                "die_at": 7, "fail_load": True, "scale": 2.0, "seconds_per_row": 0.0, "n_classes": 2, "name": "n",
                "device": "cuda:1"}  # fmt: skip
    scorer = FaultyScorer(**settings)
    assert scorer.settings() == json.loads(json.dumps(settings))
    assert scorer.replica().settings() == settings


def test_files_may_name_it_only_where_the_environment_asks_for_it(monkeypatch, tmp_path):
    cure = "'faulty' fails on purpose .* only where the environment variable LMSYS_ENSEMBLE_FAULTS=1 is set"
    monkeypatch.delenv("LMSYS_ENSEMBLE_FAULTS", raising=False)
    assert "faulty" not in scorer_names()
    with pytest.raises(RegistryError, match=cure):
        build_scorer({"type": "faulty", "die_at": 3}, tmp_path)
    with pytest.raises(RegistryError, match=cure):
        Ensemble([FaultyScorer()]).save(tmp_path)
    with pytest.raises(RegistryError, match="there is no scorer type 'fulty'"):
        build_scorer({"type": "fulty"}, tmp_path)
    monkeypatch.setenv("LMSYS_ENSEMBLE_FAULTS", "1")
    assert "faulty" in scorer_names()
    scorer = build_scorer({"type": "faulty", "die_at": 3}, tmp_path)
    assert isinstance(scorer, FaultyScorer)
    assert (scorer.die_at, scorer_type(scorer)) == (3, "faulty")


def test_only_what_changes_logits_is_in_the_fingerprint():
    plain = FaultyScorer(1).fingerprint()
    harmless = FaultyScorer(1, raise_at=4, error="OSError", out_of_memory_above=9, hang_at=6, die_at=7, fail_load=True)
    assert harmless.fingerprint() == plain
    assert FaultyScorer(1, nan_for="x").fingerprint() != plain
    assert FaultyScorer(2).fingerprint() != plain


@pytest.mark.parametrize(
    ("error", "kind"), [("RuntimeError", RuntimeError), ("SystemExit", SystemExit), ("DeviceError", errors.DeviceError)]
)
def test_an_error_comes_at_its_row_counted_over_all_calls_and_once(battles, error, kind):
    scorer = FaultyScorer(1, raise_at=7, error=error)
    scorer.progress = Listener()
    expected = FakeScorer(1).score(battles)
    assert np.array_equal(scorer.score(battles), expected)
    with pytest.raises(kind, match="faulty was told to fail at row 7"):
        scorer.score(battles)
    assert scorer.progress.rows == 7  # five, and the two before the row at fault
    assert np.array_equal(scorer.score(battles), expected), "a second attempt passes"
    with pytest.raises(kind):
        FaultyScorer(raise_at=0, error=error).score(battles)


def test_an_error_comes_once_whichever_thread_hands_in_its_row(battles):
    scorer = FaultyScorer(1, raise_at=17)
    failed, passed = [], []

    def work():
        try:
            passed.append(scorer.score(battles))
        except RuntimeError as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (len(failed), len(passed)) == (1, 7)


@pytest.mark.parametrize("error", ["NoSuchError", "print", "InputEror", "annotations"])
def test_an_error_that_does_not_exist_is_found_when_loading(error):
    with pytest.raises(ConfigError, match=f"error='{error}' names no exception"):
        FaultyScorer(error=error).load()


def test_memory_runs_out_above_a_number_of_characters_of_a_call(make_battles):
    battles = make_battles(*[("ab", "cde", "f" * n) for n in (5, 15, 25)])
    scorer = FaultyScorer(out_of_memory_above=30)
    for _ in range(2):
        with pytest.raises(MemoryError, match="run out of memory above 30 characters, got 60"):
            scorer.score(battles)
    assert np.array_equal(scorer.score(battles[:2]), FakeScorer().score(battles)[:2])
    assert np.array_equal(scorer.score(battles[2:]), FakeScorer().score(battles)[2:])


def test_marked_rows_get_nan_and_the_others_their_logits(make_battles):
    battles = make_battles(("a §1", "x", "y"), ("b", "§1", "y"), ("§1", "x", "y"))
    logits = FaultyScorer(4, nan_for="§1").score(battles)
    assert np.isnan(logits).all(axis=1).tolist() == [True, False, True]
    assert np.array_equal(logits[1], FakeScorer(4).score(battles)[1])
    with pytest.raises(ContractError, match="NaN"):
        check_scorer(FaultyScorer(nan_for="sky"))


def test_a_hanging_scorer_ends_when_the_run_is_stopped(battles):
    scorer = FaultyScorer(hang_at=3)
    scorer.progress = Listener(patience=5)
    with pytest.raises(StopScoring):
        scorer.score(battles)
    assert scorer.progress.rows == 3
    assert scorer.score(battles).shape == (5, 3)


def test_of_several_faults_the_first_row_comes_first(battles):
    with pytest.raises(RuntimeError, match="at row 2"):
        FaultyScorer(raise_at=2, hang_at=3, die_at=4).score(battles)


def test_loading_fails_as_told(battles):
    with pytest.raises(ModelError, match="mine was told not to load"), FaultyScorer(fail_load=True, name="mine"):
        pass


DYING = """
from lmsys_ensemble.testing.check import example_battles
from lmsys_ensemble.testing.faults import FaultyScorer
scorer = FaultyScorer(die_at=6)
try:
    scorer.score(example_battles())
    print("alive", flush=True)
    scorer.score(example_battles())
finally:
    print("cleaned up", flush=True)
"""


def test_the_process_dies_at_its_row_without_cleaning_up():
    done = subprocess.run([sys.executable, "-c", DYING], stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.stdout == "alive\n"
    assert done.returncode == (137 if sys.platform == "win32" else -9)
