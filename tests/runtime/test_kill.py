"""SIGKILL at random moments and in every phase of a run, again and again, each time followed by a resume."""

import json
import subprocess
import sys
from collections import Counter, defaultdict

import pytest

N_SLOTS = 2

SCRIPT = """
import json, os, random, signal, sys, time
from pathlib import Path
from unittest import mock
import numpy as np
import pandas as pd
from lmsys_ensemble import Ensemble, FakeScorer
from lmsys_ensemble.runtime import items, selection
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.runtime.planning import Planner

folder, swap, n_random, n_slots, n_rows = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
items.MIN_CHUNK, items.CHUNKS_PER_SLOT = 1, 300
random.seed(0)
log = os.open(folder / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
rows = range(n_rows)
texts = {"prompt": [f"q{row}" for row in rows], "response_a": ["a" * (row % 50) for row in rows], "response_b": "b"}
table = pd.DataFrame({"id": rows, **texts})


class Logged(FakeScorer):
    # The last digits of its logits depend on what is scored together, and every chunk leaves a line in the log.

    def score(self, battles):
        logits = super().score(battles)
        logits += np.float32(1e-3) * logits.mean()
        time.sleep(self.seconds_per_chunk)
        names = "".join(battles.content_hashes())
        os.write(log, f"{os.getpid()} {self.name} {names}\\n".encode())
        return logits

    def fingerprint(self):
        return {"seed": self.seed}


def predict(run_dir, seconds=0):
    scorers = [Logged(seed, name=f"s{seed}") for seed in range(2)]
    for scorer in scorers:
        scorer.seconds_per_chunk = seconds
    return Ensemble(scorers, devices=["cpu"] * n_slots).predict(table, run_dir=run_dir, swap=swap)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def dying_after(function, n_calls=1):
    # Does what a function does, and dies when it has been done that often.
    left = iter(range(n_calls - 1, -1, -1))

    def call(*arguments, **options):
        result = function(*arguments, **options)
        if not next(left, 0):
            die()
        return result

    return call


def in_second_passes(planned, n_chunks):
    # Dies when that many chunks have been committed since the second passes were planned.

    def call(planner, rows):
        Journal.commit = dying_after(Journal.commit, n_chunks)
        return planned(planner, rows)

    return call


def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(f"the child failed: {error!r}", file=sys.stderr)
            os._exit(2)
        os._exit(0)
    return pid


def cut(target, name, replacement):
    def work():
        with mock.patch.object(target, name, replacement):
            predict(folder / "run")

    _, status = os.waitpid(child(work), 0)
    if not os.WIFSIGNALED(status):
        sys.exit(f"cut at {name}: not killed, but {os.waitstatus_to_exitcode(status)}")
    killed.append(name)


killed = []
for _ in range(n_random):
    pid = child(lambda: predict(folder / "run", 0.03))
    time.sleep(random.uniform(0, 0.5))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        sys.exit(f"the run was done after {len(killed)} kills: it is too short for this test")
    killed.append("random")
for n_chunks in (1, 2, 5):
    cut(Journal, "commit", dying_after(Journal.commit, n_chunks))
if swap == "adaptive":
    for _ in range(2):
        cut(selection, "closest_to_call", die)
        cut(selection, "closest_to_call", dying_after(selection.closest_to_call))
        cut(Planner, "swapped", dying_after(Planner.swapped))
    for n_chunks in (1, 2, 3, 5, 8):
        cut(Planner, "swapped", in_second_passes(Planner.swapped, n_chunks))
for _ in range(2):
    cut(Journal, "write_summary", die)
    cut(Journal, "write_summary", dying_after(Journal.write_summary))
resumed, whole = predict(folder / "run"), predict(None)
pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
json.dump({"killed": killed, "ids": resumed["id"].tolist(), "me": os.getpid()}, open(folder / "report", "w"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks and sends SIGKILL")
@pytest.mark.parametrize(("swap", "n_random", "n_rows"), [("off", 20, 1_200), ("all", 20, 600), ("adaptive", 20, 800)])
def test_kills_in_every_phase_lose_nothing_falsify_nothing_and_cost_a_chunk_a_slot_each(
    tmp_path, swap, n_random, n_rows
):
    arguments = [str(value) for value in (tmp_path, swap, n_random, N_SLOTS, n_rows)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report").read_text())
    phases = {"random": n_random, "commit": 3, "write_summary": 4}
    if swap == "adaptive":
        phases |= {"closest_to_call": 4, "swapped": 7}
    assert Counter(report["killed"]) == phases
    assert report["ids"] == list(range(n_rows))
    scored = defaultdict(list)
    for line in (tmp_path / "log").read_text().splitlines():
        process, scorer, names = line.split()
        scored[scorer, names].append(int(process))
    lost = defaultdict(int)
    for processes in scored.values():
        assert processes[-1] == report["me"]  # the uninterrupted run, which made the same chunks
        for process in processes[:-2]:  # the last before it was kept
            lost[process] += 1
    assert max(lost.values(), default=0) <= N_SLOTS
    assert len({process for processes in scored.values() for process in processes}) > 3  # those cut while they scored
