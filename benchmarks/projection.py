"""How far off the projection of a run's time is: planned from a sample, then run whole.

    python benchmarks/projection.py [--rows 240] [--timed 48] [--max-tokens 2048]

Rows are real ones, a fifth of them several put together, so that lengths have a long tail as those of Chatbot Arena do.
The model is SmolLM2-135M at full depth with a seeded head. Beside the projection from the sample stands the notebooks'
own: rows times the mean seconds of the first rows of the file. Needs hh_multi_turn.parquet and gpt4_preferences.parquet
in $LMSYS_ENSEMBLE_DATA (default ../shared/data).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from workload import FILES, write_checkpoints

from lmsys_ensemble import ClassifierScorer, Ensemble, parse_battles
from lmsys_ensemble.bases.sources import resolve_base
from lmsys_ensemble.hosting.slots import usable_cores
from lmsys_ensemble.runtime.estimate import project
from lmsys_ensemble.runtime.summary import library_versions

MODEL = "bundled:smollm2-135m-instruct"
TEXTS = ["prompt", "response_a", "response_b"]


def long_tailed(data: Path, n_rows: int) -> pd.DataFrame:
    """Return real rows; every fifth is made of four."""
    rows = pd.concat([pd.read_parquet(data / name)[TEXTS] for name in FILES]).sample(4 * n_rows, random_state=0)
    cells = [[json.loads(cell) for cell in row] for row in rows.to_numpy().tolist()]
    table = []
    for number in range(n_rows):
        joined = cells[4 * number : 4 * number + (4 if number % 5 == 0 else 1)]
        table.append([json.dumps([turn for row in joined for turn in row[column]]) for column in range(len(TEXTS))])
    return pd.DataFrame(table, columns=TEXTS).assign(id=range(n_rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--timed", type=int, default=48)
    parser.add_argument("--max-tokens", type=int, default=2048)
    options = parser.parse_args()
    data = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if missing := [name for name in FILES if not (data / name).is_file()]:
        print(f"skipped: no {', '.join(missing)} in {data}; set LMSYS_ENSEMBLE_DATA")
        return 0
    battles = parse_battles(long_tailed(data, options.rows))
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoints(resolve_base(MODEL), Path(folder), 0)
        for file in resolve_base(MODEL).glob("*token*"):
            (Path(folder) / "ours" / file.name).write_bytes(file.read_bytes())
        scorer = ClassifierScorer(
            str(Path(folder) / "ours"), template="turns", max_tokens=options.max_tokens, pad_token_id=0, device="cpu"
        )
        report(scorer, battles, options.timed)
    return 0


def report(scorer: ClassifierScorer, battles, n_timed: int) -> None:
    """Print projections and what the run took."""
    lengths = scorer.encode(battles).lengths
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    print(
        f"{len(battles)} rows, {lengths.sum():,} tokens: median {np.median(lengths):.0f}, mean {lengths.mean():.0f}, "
        f"95 % below {np.quantile(lengths, 0.95):.0f}, longest {lengths.max()}; "
        f"{len(usable_cores())} cores, float32, {versions}"
    )
    projection = project([scorer], battles, n_timed=n_timed)
    ensemble = Ensemble([scorer], progress="off")
    ensemble.predict_proba(battles[:8])
    first = ensemble.summary_.seconds["score"] / len(ensemble.summary_.devices) / 8
    start = time.perf_counter()
    ensemble.predict_proba(battles)
    taken = time.perf_counter() - start
    print(f"projected from {n_timed} rows: {projection.seconds:.1f} s; taken: {taken:.1f} s: "
          f"{projection.seconds / taken - 1:+.1%}")  # fmt: skip
    print(f"by the mean of the first 8 rows: {first * len(battles):.1f} s, {first * len(battles) / taken - 1:+.1%}")


if __name__ == "__main__":
    sys.exit(main())
