"""What the runtime costs, and how well it keeps two devices busy; scorers of controlled cost stand for models.

    python benchmarks/scheduler.py [--rows 100000] [--workers 4] [--seconds 20] [--journal] [--bundled ROWS]

1. Stress: many rows through cheap scorers with random delays on several workers. Order and identity are compared with
   the logits of a plain call; overhead is wall time less what the plain calls take, a row; memory is the growth of the
   process while it runs, beside what the results take.
2. Makespan: two unequal scorers on two devices that sleep for a time proportional to a row's length. The ideal is the
   sum of their work, halved. The public notebook's way, one scorer a device, is stated beside it.
3. The same with the two bundled models on real rows (--bundled ROWS; data in $LMSYS_ENSEMBLE_DATA, default
   ../shared/data): each of two cores is a device.
"""

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from lmsys_ensemble import Ensemble, FakeScorer, parse_battles
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.hosting.slots import usable_cores
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.runtime.summary import library_versions


def make_table(n_rows: int, seed: int = 0) -> pd.DataFrame:
    """Return battles whose lengths are spread as widely as those of real ones."""
    generator = np.random.default_rng(seed)
    lengths = generator.lognormal(5.5, 1.0, (3, n_rows)).astype(int) + 1
    filler = "x" * int(lengths.max())
    texts = {
        name: [f"{name} {row} {filler[:length]}" for row, length in enumerate(column)]
        for name, column in zip(("prompt", "response_a", "response_b"), lengths, strict=True)
    }
    return pd.DataFrame({"id": generator.permutation(n_rows), **texts})


class Delayed(FakeScorer):
    """A cheap scorer whose chunks take a random while longer."""

    def score(self, battles: Battles) -> np.ndarray:
        """Return the logits of a `FakeScorer`, late."""
        time.sleep(np.random.default_rng().exponential(0.002))
        return super().score(battles)


class Timed(FakeScorer):
    """A scorer that takes a fixed time a character, and a while to load; each device needs its own."""

    shareable: ClassVar[bool] = False

    def __init__(self, seed: int = 0, *, name: str = "timed", microseconds_per_character: float = 1.0,
                 load_seconds: float = 0.0):  # fmt: skip
        super().__init__(seed, name=name)
        self.microseconds_per_character = microseconds_per_character
        self.load_seconds = load_seconds

    def load(self, device: str | None = None) -> None:
        """Take as long as it was told to."""
        time.sleep(self.load_seconds)

    def score(self, battles: Battles) -> np.ndarray:
        """Take as long as the characters want it."""
        n_characters = sum(len("".join(row.prompt + row.response_a + row.response_b)) for row in battles)
        start = time.perf_counter()
        logits = np.zeros((len(battles), 3), np.float32)
        time.sleep(max(n_characters * self.microseconds_per_character / 1e6 - (time.perf_counter() - start), 0))
        self.progress.advance(len(battles), n_characters)
        return logits


def stress(n_rows: int, n_workers: int, journal: bool) -> None:
    table = make_table(n_rows)
    battles = parse_battles(table)
    scorers = [Delayed(seed, name=f"scorer {seed}") for seed in range(3)]
    start = time.perf_counter()
    plain = [softmax(FakeScorer(scorer.seed).score(battles)) for scorer in scorers]
    plain_seconds = time.perf_counter() - start
    ensemble = Ensemble(scorers, devices=["cpu"] * n_workers, progress="off")
    with tempfile.TemporaryDirectory() as folder:
        before = resident_megabytes()
        start = time.perf_counter()
        members = ensemble.member_probabilities(battles, run_dir=folder if journal else None)
        seconds = time.perf_counter() - start
        grown = resident_megabytes() - before
    assert all(np.array_equal(members[s.name], expected) for s, expected in zip(scorers, plain, strict=True))
    results = sum(values.nbytes for values in members.values()) / 2**20
    summary = ensemble.summary_
    n_scored = n_rows * len(scorers)
    n_chunks = sum(scorer.chunks for scorer in summary.scorers)
    inside = summary.seconds["score"] / n_scored * 1e6
    print(f"\n{n_rows} rows, {len(scorers)} scorers with random delays, {n_workers} workers, journal {journal}")
    print(f"order and identity: as a plain call; {n_chunks} chunks, {len(summary.helping)} times a worker helped")
    print(
        f"wall {seconds:.1f} s; plain calls one after the other {plain_seconds:.1f} s; in score() {inside:.0f} µs a row"
    )
    overhead = (seconds - plain_seconds) / n_scored * 1e6
    rest = (summary.seconds["prepare"] + summary.seconds["journal"]) / n_scored * 1e6
    print(f"overhead {overhead:.1f} µs a row and scorer (of which preparing and journal {rest:.1f})")
    print(f"memory grew by {grown:.0f} MB beside the table; results are {results:.0f} MB")


def resident_megabytes() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def makespan(seconds: float, load_seconds: float) -> None:
    table = make_table(3_000, seed=1)
    battles = parse_battles(table)
    columns = (battles.prompts, battles.responses_a, battles.responses_b)
    n_characters = sum(len(turn) for column in columns for turns in column for turn in turns)
    unit = seconds * 2 / 4 / n_characters * 1e6
    slow, fast = (
        Timed(seed, name=name, microseconds_per_character=share * unit, load_seconds=load_seconds)
        for seed, name, share in ((0, "slow", 3), (1, "fast", 1))
    )
    ensemble = Ensemble([slow, fast], devices=["cpu", "cpu"], progress="off")
    start = time.perf_counter()
    ensemble.predict(battles)
    wall = time.perf_counter() - start
    summary = ensemble.summary_
    ideal = (summary.seconds["score"] + summary.seconds["load"]) / 2
    apart = load_seconds + n_characters * slow.microseconds_per_character / 1e6
    print(f"\n{len(table)} rows, two scorers, one three times as slow, two devices, loading takes {load_seconds:.1f} s")
    print(f"makespan {wall:.2f} s; total work / 2 {ideal:.2f} s: {wall / ideal - 1:+.1%}")
    print(f"one scorer a device, as the public notebook: {apart:.2f} s, {apart / ideal - 1:+.1%}")
    print(f"helping: {summary.helping}")


def bundled_makespan(n_rows: int) -> None:
    """Print how evenly the bundled models' work is shared out, and what one model a core would take."""
    folder = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = folder / "gpt4_preferences.parquet"
    if not path.is_file():
        print(f"skipped: no {path.name} in {folder}; set LMSYS_ENSEMBLE_DATA")
        return
    battles = parse_battles(pd.read_parquet(path).sample(n_rows, random_state=0))
    ensemble = Ensemble(progress="off", devices=["cpu", "cpu"])
    start = time.perf_counter()
    ensemble.predict(battles)
    wall = time.perf_counter() - start
    work = [sum(scorer.seconds.values()) for scorer in ensemble.summary_.scorers]
    shares = " and ".join(f"{seconds:.1f} s" for seconds in work)
    print(f"\n{n_rows} rows, the two bundled models, two cores; work {shares}, loading included")
    print(f"makespan {wall:.1f} s; total work / 2 {sum(work) / 2:.1f} s: {wall / (sum(work) / 2) - 1:+.1%}")
    print(f"one model a core: {max(work):.1f} s, {max(work) / (sum(work) / 2) - 1:+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0, help="work of the makespan's scorers, halved")
    parser.add_argument("--journal", action="store_true", help="stress with a journal, too")
    parser.add_argument("--bundled", type=int, metavar="ROWS", help="the bundled models' makespan, only")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {value}" for name, value in library_versions().items())
    print(f"{versions}; {platform.system()} {platform.machine()}, {len(usable_cores())} cores")
    if options.bundled:
        bundled_makespan(options.bundled)
        return
    makespan(options.seconds, 0.0)
    makespan(options.seconds, options.seconds / 20)
    stress(options.rows, options.workers, False)
    if options.journal:
        stress(options.rows, options.workers, True)


if __name__ == "__main__":
    main()
