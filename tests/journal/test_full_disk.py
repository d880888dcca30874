"""A whole run whose disk fills up: a clear error, finished work kept, and a resume that gives what was to be given."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, signal, sys
import pandas as pd
from lmsys_ensemble import Ensemble, FakeScorer
from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.runtime import items

items.MIN_CHUNK, items.CHUNKS_PER_SLOT = 1, 500
rows = range(4_000)
texts = {"prompt": [f"q{row}" for row in rows], "response_a": "a", "response_b": "b"}
table = pd.DataFrame({"id": rows, **texts})
scorers = [FakeScorer(seed, name=f"s{seed}") for seed in range(2)]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes beyond the limit fail instead, as on a full disk
limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, most))
try:
    Ensemble(scorers, devices=["cpu"] * 2).predict(table, run_dir=sys.argv[1])
except JournalError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
ensemble = Ensemble(scorers, devices=["cpu"] * 2)
resumed = ensemble.predict(table, run_dir=sys.argv[1])
print(sum(scorer.resumed_rows for scorer in ensemble.summary_.scorers))
pd.testing.assert_frame_equal(resumed, Ensemble(scorers).predict(table), check_exact=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
def test_a_run_that_fills_the_disk_says_so_and_is_resumed(tmp_path):
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    message, n_resumed = done.stdout.splitlines()
    assert "disk or quota is probably full" in message
    assert "start the same run again" in message
    assert 0 < int(n_resumed) < 8_000
