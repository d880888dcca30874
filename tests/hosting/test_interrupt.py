"""Ctrl-C and SIGTERM, sent to real processes."""

import re
import signal
import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from lmsys_ensemble import FakeScorer
from lmsys_ensemble.hosting.interrupt import Terminated, terminable
from lmsys_ensemble.journal.journal import Journal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")

PATIENCE = 300
"""Seconds after which a test that waits for another process has failed."""

SCRIPT = """
import signal, sys, threading
import pandas as pd
from lmsys_ensemble import Ensemble, FakeScorer
from lmsys_ensemble.runtime import items

items.MIN_CHUNK, items.CHUNKS_PER_SLOT = 1, 5_000
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it


class Slow(FakeScorer):
    def score(self, battles):
        print("scoring\\n", end="", flush=True)
        return super().score(battles)

    def close(self):
        print("closed\\n", end="", flush=True)


rows = range(10_000)
table = pd.DataFrame({"id": rows, "prompt": [f"p{row}" for row in rows], "response_a": "a", "response_b": "b"})
scorers = [Slow(seed, name=name, seconds_per_row=0.05) for seed, name in enumerate(("one", "two"))]
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
        output, _ = process.communicate(timeout=PATIENCE)  # undisturbed it would take longer
    finally:
        process.kill()
    assert output == f"closed\nclosed\n{name} with 1 thread\nPass run_dir= to keep finished work\n"
    assert process.returncode == code


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
def test_what_was_finished_before_a_signal_is_kept_and_said(sent, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        for _ in range(12):  # two are being scored at a time, so that ten are finished
            assert process.stdout.readline() == "scoring\n"
        process.send_signal(getattr(signal, sent))
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    said = re.search(r"(\d+) of 20000 rows of all scorers are kept in .*: rerun with the same run_dir", output)
    fingerprints = {
        name: FakeScorer(seed, name=name, seconds_per_row=0.05).fingerprint() | {"class": "__main__:Slow"}
        for seed, name in enumerate(("one", "two"))
    }
    with Journal.open(tmp_path / "run", fingerprints) as journal:
        n_kept = sum(len(journal.finished(name)) for name in fingerprints)
    assert n_kept >= 10
    assert int(said[1]) == n_kept


CLI = """
import signal, sys
from lmsys_ensemble import FakeScorer
from lmsys_ensemble.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)
FakeScorer.load = lambda self, device=None: print("loaded", flush=True)
sys.exit(main(["predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv"]))
"""


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_command_line_says_that_it_was_interrupted_and_exits_as_shells_expect(sent, code, tmp_path):
    rows = range(2_000)
    table = pd.DataFrame({"id": rows, "prompt": [f"p{row}" for row in rows], "response_a": "a", "response_b": "b"})
    table.to_csv(tmp_path / "test.csv", index=False)
    (tmp_path / "ensemble.yaml").write_text("scorers: [{type: fake, seconds_per_row: 0.5}]")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CLI)], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "loaded\n"
        process.send_signal(getattr(signal, sent))
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == code
    assert errors == "interrupted\nPass --run-dir to keep finished work\n"
    assert not (tmp_path / "p.csv").exists()


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
