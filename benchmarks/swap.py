"""What a second pass with the responses exchanged costs, and what it is worth.

    python benchmarks/swap.py [--rows 150] [--repeats 3]

Worth: log loss of the bundled ensemble, on human labels of rows that it was not trained on, with no, all, or some
second passes; which rows are chosen for one by several measures of closeness; averaged as probabilities or as
logarithms. Cost: seconds of ``swap="all"`` over those of ``swap="off"`` in one run, interleaved, and the same with
shared prompts switched off. Needs pandalm_human.parquet in $LMSYS_ENSEMBLE_DATA (default ../shared/data).
"""

import argparse
import platform
import sys
import time
from unittest import mock

import numpy as np
import torch
import transformers
from held_out import read_held_out

from lmsys_ensemble import Ensemble
from lmsys_ensemble.encoding import prefixes
from lmsys_ensemble.evaluation.folds import group_codes
from lmsys_ensemble.evaluation.intervals import paired_difference
from lmsys_ensemble.evaluation.metrics import row_log_losses
from lmsys_ensemble.hosting.slots import usable_cores
from lmsys_ensemble.probabilities import renormalise, swap_classes

SHARES = (0.1, 0.25, 0.5, 0.75)


def closeness(probabilities):
    """Return measures by which rows are close to call: the smaller, the closer."""
    ordered = np.sort(probabilities, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(probabilities * np.log(probabilities), axis=1)
    return {
        "margin of the two largest": ordered[:, -1] - ordered[:, -2],
        "|P(A) - P(B)|": np.abs(probabilities[:, 0] - probabilities[:, 1]),
        "negative entropy": -entropy,
    }


def worth(ensemble, battles, labels, codes):
    """Print log losses for every share and measure, against no second passes."""
    forward = average(ensemble.member_probabilities(battles))
    backward = swap_classes(average(ensemble.member_probabilities(battles.swapped())), ensemble.task)
    means = {
        "probability": (forward + backward) / 2,
        "log": renormalise(np.sqrt(forward * backward)),
    }
    off = row_log_losses(labels, forward)
    show("off", off, off, codes)
    for space, mean in means.items():
        show(f"all, averaged as {space}", row_log_losses(labels, mean), off, codes)
    for name, close in closeness(forward).items():
        order = np.argsort(close, kind="stable")
        for share in SHARES:
            mixed = forward.copy()
            chosen = order[: round(share * len(order))]
            mixed[chosen] = means["probability"][chosen]
            show(f"{share:.0%} by {name}", row_log_losses(labels, mixed), off, codes)


def average(members):
    """Return the equal blend, as the bundled ensemble has it."""
    return np.mean(list(members.values()), axis=0)


def show(name, losses, reference, codes):
    """Print a row of the table."""
    found = paired_difference(losses, reference, codes)
    print(f"| {name} | {losses.mean():.4f} | {found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f}) |")


def cost(ensemble, battles, repeats):
    """Print seconds of second passes over those of one, with and without shared prompts."""
    seconds = {"off": [], "all": [], "all, nothing shared": []}
    results = {}
    for _ in range(repeats):
        for name, times in seconds.items():
            start = time.perf_counter()
            with mock.patch.object(prefixes, "SHORTEST_PREFIX", sys.maxsize if "nothing" in name else 32):
                results[name] = ensemble.predict_proba(battles, swap=name[:3])
            loading = sum(scorer.seconds["load"] for scorer in ensemble.summary_.scorers)
            times.append(time.perf_counter() - start - loading / len(ensemble.summary_.devices))
    base = np.median(seconds["off"])
    print("\n| passes | seconds, median (spread) | to one pass |\n|---|---|---|")
    for name, times in seconds.items():
        print(
            f"| {name} | {np.median(times):.1f} ({min(times):.1f} to {max(times):.1f}) "
            f"| {np.median(times) / base:.2f} |"
        )
    difference = np.abs(results["all"] - results["all, nothing shared"]).max()
    print(f"\nlargest difference of a probability that sharing prompts makes: {difference:.1e}")


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=150, help="rows that are timed")
    parser.add_argument("--repeats", type=int, default=3, help="0 leaves the timing out")
    options = parser.parse_args()
    data = read_held_out()
    if data is None:
        return 0
    battles = data.battles
    ensemble = Ensemble(progress="off")
    print(
        f"bundled ensemble, float32, {len(usable_cores())} cores ({platform.machine()}), torch {torch.__version__}, "
        f"transformers {transformers.__version__}; {len(battles)} rows\n\n"
        "| second passes | log loss | to none |\n|---|---|---|"
    )
    worth(ensemble, battles, data.labels, group_codes(data.groups, len(data)))
    if options.repeats:
        cost(ensemble, battles.take(np.arange(0, len(battles), max(len(battles) // options.rows, 1))), options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
