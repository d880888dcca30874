"""Ctrl-C and SIGTERM, sent to real processes."""

import signal
import subprocess
import sys
import textwrap

import pytest

from lmsys_ensemble.runtime.interrupt import Terminated, terminable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")

PATIENCE = 60
"""Seconds after which a test that waits for another process has failed."""

SCRIPT = """
import signal, sys, threading
import pandas as pd
from lmsys_ensemble import Ensemble, FakeScorer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it


class Slow(FakeScorer):
    def score(self, battles):
        print("scoring\\n", end="", flush=True)
        return super().score(battles)

    def close(self):
        print("closed\\n", end="", flush=True)


rows = range(100_000)
table = pd.DataFrame({"id": rows, "prompt": [f"p{row}" for row in rows], "response_a": "a", "response_b": "b"})
scorers = [Slow(seed, name=name, seconds_per_row=0.02) for seed, name in enumerate(("one", "two"))]
try:
    Ensemble(scorers, devices=["cpu"] * 2).predict(table, run_dir=sys.argv[1] if len(sys.argv) > 1 else None)
except BaseException as error:
    print(type(error).__name__, "with", threading.active_count(), "thread", flush=True)
    print(*error.__notes__, flush=True)
    raise
"""


@pytest.mark.parametrize(
    ("sent", "name", "code"), [("SIGINT", "KeyboardInterrupt", -2), ("SIGTERM", "Terminated", 143)]
)
def test_a_signal_ends_all_threads_and_then_the_run(sent, name, code):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert [process.stdout.readline() for _ in range(2)] == ["scoring\n"] * 2
        process.send_signal(getattr(signal, sent))
        output, _ = process.communicate(timeout=PATIENCE)  # undisturbed it would take half an hour
    finally:
        process.kill()
    assert output == f"closed\nclosed\n{name} with 1 thread\nPass run_dir= to keep finished work\n"
    assert process.returncode == code


def test_the_handler_is_there_during_a_run_only():
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(Terminated) as caught, terminable():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_programs_own_handler_is_left_alone():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("mine"))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["mine"]
