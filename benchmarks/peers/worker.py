"""One peer in a process of its own: load, warm up, score all rows, write seconds and probabilities.

    python worker.py with_notebook job.json result.json

Runs in foreign environments, so neither it nor the peers' modules beside it import the library (`with_ours` excepted).
A peer's module has ``load(job)``, which returns a function from row numbers to probabilities of shape (n_rows, 3), and
may have ``PACKAGES``, whose versions are reported. Both are timed by the clock, unless the function has attributes
``load_s`` and ``seconds`` that say how long its last call loaded and scored.
"""

import importlib
import json
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def versions(packages):
    """Return the installed ones' versions."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    name, job_file, result_file = sys.argv[1:]
    job = json.loads(Path(job_file).read_text())
    peer = importlib.import_module(name)
    start = time.perf_counter()
    score = peer.load(job)
    load_s = time.perf_counter() - start
    n_rows = len(job["ids"])
    score(range(min(2, n_rows)))
    start = time.perf_counter()
    probabilities = score(range(n_rows))
    score_s = getattr(score, "seconds", None) or time.perf_counter() - start
    result = {
        "load_s": getattr(score, "load_s", None) or load_s,
        "score_s": score_s,
        "probabilities": [[float(value) for value in row] for row in probabilities],
        "versions": versions(["torch", "transformers", *getattr(peer, "PACKAGES", ())]),
        "note": getattr(score, "note", ""),
    }
    Path(result_file).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
