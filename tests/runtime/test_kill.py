"""SIGKILL at random moments, again and again, each time followed by a resume."""

import json
import subprocess
import sys
from collections import defaultdict

import pytest

N_KILLS, N_SLOTS, N_ROWS = 50, 2, 2_400

SCRIPT = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np
import pandas as pd
from lmsys_ensemble import Ensemble, FakeScorer
from lmsys_ensemble.runtime import items

folder, n_kills, n_slots, n_rows = Path(sys.argv[1]), *map(int, sys.argv[2:])
items.MIN_CHUNK, items.CHUNKS_PER_SLOT = 1, 300
random.seed(0)
log = os.open(folder / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)


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


def predict(run_dir, seconds):
    rows = range(n_rows)
    texts = {"prompt": [f"q{row}" for row in rows], "response_a": ["a" * (row % 50) for row in rows], "response_b": "b"}
    scorers = [Logged(seed, name=f"s{seed}") for seed in range(2)]
    for scorer in scorers:
        scorer.seconds_per_chunk = seconds
    return Ensemble(scorers, devices=["cpu"] * n_slots).predict(pd.DataFrame({"id": rows, **texts}), run_dir=run_dir)


n_killed = 0
while n_killed < n_kills:
    child = os.fork()
    if child == 0:
        predict(folder / "run", 0.03)
        os._exit(0)
    time.sleep(random.uniform(0, 0.5))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        sys.exit(f"the run was done after {n_killed} kills: it is too short for this test")
    n_killed += 1
resumed, whole = predict(folder / "run", 0), predict(None, 0)
pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
json.dump({"killed": n_killed, "ids": resumed["id"].tolist(), "me": os.getpid()}, open(folder / "report", "w"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks and sends SIGKILL")
def test_fifty_kills_lose_nothing_falsify_nothing_and_cost_a_chunk_a_slot_each(tmp_path):
    arguments = [str(value) for value in (tmp_path, N_KILLS, N_SLOTS, N_ROWS)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report").read_text())
    assert report["killed"] == N_KILLS
    assert report["ids"] == list(range(N_ROWS))
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
    assert len({process for processes in scored.values() for process in processes}) > 10  # most came far enough
