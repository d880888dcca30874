"""What bfloat16 costs in log loss and saves in time on a CPU: the bundled ensemble against itself in float32.

    python benchmarks/precision.py [--repeats 2]

On the human comparisons (PandaLM) that neither bundled model was trained on, found by the recipes' own split. Needs
pandalm_human.parquet in $LMSYS_ENSEMBLE_DATA (default ../shared/data).
"""

import argparse
import platform
import sys

import numpy as np
import torch
from held_out import read_held_out

from lmsys_ensemble import Ensemble
from lmsys_ensemble.evaluation.folds import group_codes
from lmsys_ensemble.evaluation.intervals import paired_difference
from lmsys_ensemble.evaluation.metrics import row_log_losses
from lmsys_ensemble.hosting.slots import usable_cores
from lmsys_ensemble.runtime.summary import library_versions


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    data = read_held_out()
    if data is None:
        return 0
    ensembles = {name: Ensemble.from_config(name, progress="off") for name in ("default", "fast")}
    seconds = {name: [] for name in ensembles}
    predicted = {}
    for _ in range(options.repeats):
        for name, ensemble in ensembles.items():
            members = ensemble.member_probabilities(data.battles)
            predicted[name] = {**members, "average": np.mean(list(members.values()), axis=0)}
            seconds[name].append({scorer.name: scorer.seconds["score"] for scorer in ensemble.summary_.scorers})
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    tiles = torch.cpu._is_amx_tile_supported()
    print(f"{len(data)} rows, {len(usable_cores())} cores ({platform.machine()}, AMX: {tiles}), {versions}\n")
    print("| model | float32 | bfloat16 | difference (95 %) | mean / max dp | speed |\n|---|---|---|---|---|---|")
    codes = group_codes(data.groups, len(data))
    for name, exact in predicted["default"].items():
        rounded = predicted["fast"][name]
        losses = [row_log_losses(data.labels, values) for values in (exact, rounded)]
        found = paired_difference(losses[1], losses[0], codes)
        fastest = [
            min(sum(run.values()) if name == "average" else run[name] for run in seconds[kind]) for kind in ensembles
        ]
        apart = np.abs(rounded - exact)
        print(
            f"| {name} | {losses[0].mean():.4f} | {losses[1].mean():.4f} | {found.mean:+.4f} ({found.low:+.4f} to "
            f"{found.high:+.4f}) | {apart.mean():.4f} / {apart.max():.3f} | {fastest[0] / fastest[1]:.2f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
