"""What method ``auto`` chooses on random parts of real rows, and what that is worth on the rows left out.

Run as ``python benchmarks/choosing.py``; takes some minutes on one core. It needs
lmsys_two_models_oof.csv in the folder that LMSYS_ENSEMBLE_DATA names. "Without the second half" is the rule of one
standard error alone, which does not ask whether choosing is certain to gain.
"""

import argparse
import sys

import numpy as np
from blending import read_members
from sklearn import __version__ as sklearn_version

from lmsys_ensemble import __version__
from lmsys_ensemble.blending.selection import candidate_specs, select_spec
from lmsys_ensemble.evaluation.metrics import log_loss

SIZES = (1_000, 2_000, 4_000, 5_748)


def first_half(table) -> int:
    """Return the position that the rule of one standard error takes."""
    near = table["gap"] <= table["gap_error"]
    choice = near & (table["high"] < 0)
    return 0 if near.iloc[0] or not choice.any() else int(np.argmax(choice))


def gains(members: list[np.ndarray], labels: np.ndarray, n_rows: int, seed: int) -> list[tuple[float, str]]:
    """Return log loss to the equal average on the rows left out, and method, by either rule."""
    order = np.random.default_rng([n_rows, seed]).permutation(len(labels))
    seen, left = order[:n_rows], order[n_rows:]
    specs, weights = candidate_specs(len(members), labels.shape[1]), np.ones(n_rows)
    parts = [member[seen] for member in members]
    spec, table = select_spec(specs, parts, labels[seen], weights, np.arange(n_rows))
    held, truth = [member[left] for member in members], labels[left]
    equal = log_loss(truth, np.mean(held, axis=0))
    chosen = (specs[first_half(table)], spec)
    return [(log_loss(truth, one.fit(parts, labels[seen], weights).apply(held)) - equal, one.method) for one in chosen]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--subsets", type=int, default=40)
    n_subsets = parser.parse_args().subsets
    if (rows := read_members()) is None:
        return 0
    members, y = rows
    labels = np.eye(members[0].shape[1])[y]
    print(
        f"{len(y)} rows, {n_subsets} subsets a size; cpu, float64; lmsys-ensemble {__version__}, "
        f"numpy {np.__version__}, scikit-learn {sklearn_version}\n"
    )
    print("| rows to choose on | without the second half | with it | took `stack` |\n|---|---|---|---|")
    for size in SIZES:
        runs = [gains(members, labels, size, seed) for seed in range(n_subsets)]
        means = [np.mean([run[rule][0] for run in runs]) for rule in (0, 1)]
        stacks = [100 * np.mean([run[rule][1] == "stack" for run in runs]) for rule in (0, 1)]
        print(f"| {size:,} | {means[0]:+.5f} | {means[1]:+.5f} | {stacks[0]:.0f} % / {stacks[1]:.0f} % |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
