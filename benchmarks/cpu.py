"""Rows a second on the CPU, ours beside its peers: the same rows, the same weights, each in a process of its own.

    python benchmarks/cpu.py [--models bundled:smollm2-135m-instruct] [--rows 48] [--repeats 3]
                             [--peers notebook ours ours-bfloat16 ...] [--json FILE]

Every model is written once at full depth with a seeded float32 head; the peers load that. Rows are drawn from two
files of preference data in $LMSYS_ENSEMBLE_DATA (default ../shared/data) and cut to 1,024 tokens. Every peer loads,
scores two rows to warm up, and is timed on all rows; the repeats are interleaved. Probabilities are compared with
transformers in float32, a row at a time. Peers whose dependencies conflict with ours get environments that are made
once (--environments FOLDER, or one in the user's cache); a peer that cannot run is listed with the reason.

Nothing else may run meanwhile.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from environments import ENVIRONMENTS, Unavailable, default_folder, python_of
from workload import FILES, Workload, write_workload

from lmsys_ensemble.hosting.slots import usable_cores
from lmsys_ensemble.runtime.summary import library_versions

WORKER = Path(__file__).parent / "peers" / "worker.py"
BASE = "notebook"
BATCH_SIZE = 4
PEER_S = 3600


@dataclass(frozen=True)
class Peer:
    """A row of the table."""

    title: str
    module: str
    environment: str | None = None
    dtype: str | None = None


PEERS = {
    "notebook": Peer("notebook loop (sort, batch 4, pad)", "with_notebook"),
    "ours": Peer("**lmsys_ensemble, exact**", "with_ours"),
    "ours-bfloat16": Peer("**lmsys_ensemble, bfloat16**", "with_ours", dtype="bfloat16"),
    "pipeline": Peer("transformers pipeline", "with_pipeline"),
    "cross-encoder": Peer("sentence-transformers CrossEncoder", "with_cross_encoder", "transformers"),
    "pairjudge": Peer("pairjudge", "with_pairjudge", "transformers"),
    "vllm": Peer("vLLM, CPU build", "with_vllm", "vllm"),
    "openvino": Peer("OpenVINO float32", "with_openvino", "transformers"),
    "openvino-int8": Peer("OpenVINO, NNCF int8", "with_openvino_int8", "transformers"),
}


@dataclass
class Measured:
    """What the repeats of a peer gave."""

    seconds: list[float] = field(default_factory=list)
    load_s: list[float] = field(default_factory=list)
    difference: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""
    failed: str = ""

    def take(self, result: dict, reference: np.ndarray) -> None:
        """Add a repeat; an engine that returns nothing in no time is not fast but broken."""
        probabilities = np.array(result["probabilities"])
        if probabilities.shape != reference.shape or not np.isfinite(probabilities).all():
            self.failed = f"broken: returned shape {probabilities.shape} or values that are not finite"
            return
        self.seconds.append(result["score_s"])
        self.load_s.append(result["load_s"])
        self.difference = max(self.difference, float(np.abs(probabilities - reference).max()))
        self.versions, self.note = result["versions"], result["note"]


def matmul_ceiling(size: int = 2048, repeats: int = 8) -> float:
    """Return GFLOP/s of the fastest of a few float32 matrix products on all cores."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def run_worker(python: Path, module: str, job: Path) -> dict:
    """Run a peer's process and return what it wrote.

    Raises
    ------
    Unavailable
        If it failed; what it gave as the reason.
    """
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [str(python), str(WORKER), module, str(job), str(result)]
        try:
            done = subprocess.run(
                command, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=PEER_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"not done within {PEER_S} s") from error
        if done.returncode or not result.is_file():
            raise Unavailable(f"exit code {done.returncode}: {_root_cause(done.stdout + done.stderr)}")
        return json.loads(result.read_text())


def _root_cause(said: str) -> str:
    """Return the line that names the error; engines of several processes end with one that only points upwards."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "Error: " in line and "See root cause above" not in line]
    return (errors or lines or ["no message"])[-1][:300]


def interpreters(names: list[str], environments: Path) -> dict[str, Path | Unavailable]:
    """Return every peer's interpreter, or why it has none."""
    found: dict[str, Path | Unavailable] = {}
    for name in names:
        peer = PEERS[name]
        try:
            found[name] = python_of(peer.environment, environments) if peer.environment else Path(sys.executable)
        except Unavailable as reason:
            found[name] = reason
    return found


def measure(
    names: list[str], pythons: dict[str, Path | Unavailable], workload: Workload, repeats: int
) -> dict[str, Measured]:
    """Run all peers `repeats` times in turn; one that failed is not tried again."""
    files = {None: workload.file}
    for dtype in {PEERS[name].dtype for name in names} - {None}:
        files[dtype] = workload.file.with_name(f"{dtype}.json")
        files[dtype].write_text(json.dumps({**workload.job, "settings": {**workload.job["settings"], "dtype": dtype}}))
    reference = np.array(run_worker(Path(sys.executable), "with_reference", workload.file)["probabilities"])
    found = {name: Measured() for name in names}
    for repeat in range(repeats):
        for name in names:
            python, mine = pythons[name], found[name]
            if isinstance(python, Unavailable):
                mine.failed = str(python)
            if mine.failed:
                continue
            print(f"repeat {repeat + 1} of {repeats}: {name}", file=sys.stderr)
            try:
                result = run_worker(python, PEERS[name].module, files[PEERS[name].dtype])
            except Unavailable as reason:
                mine.failed = str(reason)
                continue
            mine.take(result, reference)
    return found


def table(found: dict[str, Measured], workload: Workload, ceiling: float) -> list[str]:
    """Return the results as a Markdown table, and notes below it."""
    n_rows, n_tokens = len(workload.lengths), int(workload.lengths.sum())
    base = found[BASE].seconds if BASE in found else []
    lines = [
        "| engine | rows/s (min to max) | tokens/s | to the notebook | of the fp32 ceiling | load s | max abs dp |",
        "|---|---|---|---|---|---|---|",
    ]
    notes = []
    for name, mine in found.items():
        title = PEERS[name].title
        if mine.failed:
            lines.append(f"| {title} | not measured | | | | | |")
            notes.append(f"{title}: {mine.failed}")
            continue
        rates = [n_rows / seconds for seconds in mine.seconds]
        middle = statistics.median(mine.seconds)
        ratio = f"{statistics.median(base) / middle:.2f}x" if base else ""
        share = workload.flop_per_token * n_tokens / middle / 1e9 / ceiling
        lines.append(
            f"| {title} | {n_rows / middle:.2f} ({min(rates):.2f} to {max(rates):.2f}) | {n_tokens / middle:,.0f} | "
            f"{ratio} | {share:.0%} | {statistics.median(mine.load_s):.1f} | {mine.difference:.1e} |"
        )
        versions = ", ".join(f"{package} {version}" for package, version in mine.versions.items())
        notes.append(f"{title}: {versions}{'; ' + mine.note if mine.note else ''}")
    return [*lines, "", *(f"- {note}" for note in notes)]


def conditions(name: str, workload: Workload, ceiling: float) -> str:
    """Return the line that says what the figures belong to."""
    lengths = workload.lengths
    versions = ", ".join(f"{package} {version}" for package, version in library_versions().items())
    return (
        f"{name}: {len(lengths)} rows, {lengths.sum():,} tokens (mean {lengths.mean():.0f}, longest {lengths.max()}), "
        f"padding of the notebook loop {workload.padding_share(BATCH_SIZE):.1%}; cpu "
        f"({torch.backends.cpu.get_cpu_capability()}), "
        f"float32 unless said, {len(usable_cores())} cores, {torch.get_num_threads()} threads; "
        f"matmul ceiling {ceiling:.0f} GFLOP/s (float32); {platform.system()}, {versions}"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["bundled:smollm2-135m-instruct"])
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--environments", type=Path, default=default_folder(), help=f"of {', '.join(ENVIRONMENTS)}")
    parser.add_argument("--json", type=Path, help="write all measurements there, too")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    data = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if missing := [name for name in FILES if not (data / name).is_file()]:
        print(f"skipped: no {', '.join(missing)} in {data}; set LMSYS_ENSEMBLE_DATA")
        return 0
    pythons = interpreters(options.peers, options.environments)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for position, name in enumerate(options.models):
            workload = write_workload(
                name, data, Path(folder) / str(position),
                n_rows=options.rows, max_tokens=options.max_tokens, seed=options.seed,
            )  # fmt: skip
            before = matmul_ceiling()
            found = measure(options.peers, pythons, workload, options.repeats)
            ceiling = max(before, matmul_ceiling())
            said = conditions(name, workload, ceiling)
            print("\n".join([said, "", *table(found, workload, ceiling), ""]), flush=True)
            peers = {peer: vars(mine) for peer, mine in found.items()}
            results.append(
                {"model": name, "conditions": said, "lengths": workload.lengths.tolist(), "ceiling_gflops": ceiling,
                 "padding_share": workload.padding_share(BATCH_SIZE), "peers": peers}
            )  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
