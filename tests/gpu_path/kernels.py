"""The library's attention kernel, compiled for GPUs that are not there: shared memory, registers and spills.

    python -m tests.gpu_path.kernels [--cards A100 L4] [--head-sizes 128 256]

`FlexAttention` runs on tensors without storage that claim to lie on a GPU; PyTorch's compiler generates its Triton
kernel for the card's properties, and Triton's own ptxas compiles that to machine code. Needs the `triton` wheel on the
path, as `make check-gpu-path` lays it, and a build of PyTorch for CPUs. Fails where a kernel asks for more shared
memory than a block can have on the card, or where registers spill.
"""

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

CARDS = {
    "A100": ((8, 0), 166_912, 108),
    "A10, RTX 30": ((8, 6), 101_376, 72),
    "L4, RTX 40": ((8, 9), 101_376, 58),
    "H100": ((9, 0), 232_448, 132),
    "B200": ((10, 0), 232_448, 148),
    "RTX 50": ((12, 0), 101_376, 84),
}
"""Compute capability, bytes of shared memory that a block of threads can have, multiprocessors."""

HEADS = {64: (14, 2), 96: (32, 8), 128: (32, 8), 256: (16, 8)}
"""Heads of queries and of keys by head size, as models have them; 14 and 96 are no powers of two."""

SOFTCAPS = {64: (None,), 96: (None,)}
"""Soft-capping by head size; None and 50 where nothing else stands, as in Gemma 2."""

SIZE = 4096
"""Tokens of the batch; the kernel is the same for all."""


def main() -> int:
    """Compile for every card in a process of its own, since PyTorch keeps what it has learned of a device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", nargs="+", choices=CARDS, default=list(CARDS)[:4])
    parser.add_argument("--head-sizes", nargs="+", type=int, choices=HEADS, default=[64, 128, 256])
    parser.add_argument("--guard", type=Path, help="device guard: compile here, for one card")
    options = parser.parse_args()
    if shutil.which("g++") is None or torch.version.cuda:
        print("skipped: needs g++ and a build of PyTorch for CPUs")
        return 0
    if options.guard:
        return check_card(options.cards[0], options.head_sizes, options.guard)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        given = [str(build_guard(Path(folder))), "--head-sizes", *map(str, options.head_sizes)]
        return max(pool.map(lambda card: in_a_process(card, given), options.cards))


def build_guard(folder: Path) -> Path:
    """Compile the device guard that a build of PyTorch for CPUs lacks."""
    library, torch_folder = folder / "guard.so", Path(torch.__file__).parent
    paths = [f"-I{torch_folder}/include", f"-L{torch_folder}/lib"]
    source = str(Path(__file__).with_name("guard.cpp"))
    subprocess.run(["g++", "-std=c++20", "-shared", "-fPIC", *paths, source, "-o", str(library), "-lc10"], check=True)
    return library


def in_a_process(card: str, given: list[str]) -> int:
    """Check one card and print what the process printed."""
    command = [sys.executable, "-m", "tests.gpu_path.kernels", "--cards", card, "--guard", *given]
    with tempfile.TemporaryDirectory() as folder:
        caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
        done = subprocess.run(
            command,
            env={**os.environ, **caches},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    print(done.stdout, end="", flush=True)
    return done.returncode


def check_card(card: str, head_sizes: list[int], guard: Path) -> int:
    """Compile all kinds of kernels for one card and print a line for each; return 1 if one of them does not do."""
    from tests.gpu_path.pretended_compiler import compile_attention, pretend_card

    capability, shared_memory, n_processors = CARDS[card]
    ctypes.CDLL(str(guard))
    pretend_card(capability, shared_memory, n_processors)
    faults = 0
    kinds = [
        (head_size, dtype, softcap)
        for head_size in head_sizes
        for dtype in (torch.bfloat16, torch.float16)
        for softcap in SOFTCAPS.get(head_size, (None, 50.0))
    ]
    for head_size, dtype, softcap in kinds:
        kernel = compile_attention(*HEADS[head_size], head_size, dtype, softcap, SIZE)
        asked, (registers, stack, local) = kernel.metadata.shared, resources(kernel.asm["cubin"])
        verdict = "ok" if asked <= shared_memory and not stack and not local else "FAULT"
        faults += verdict != "ok"
        print(
            f"{card} (sm{capability[0]}{capability[1]}), head size {head_size}, {str(dtype)[6:]}, "
            f"{'soft-capped' if softcap else 'plain'}: {asked:,} of {shared_memory:,} bytes of shared memory, "
            f"{kernel.metadata.num_stages} stages, {kernel.metadata.num_warps} warps, {registers} registers, "
            f"{stack + local} bytes spilled: {verdict}",
            flush=True,
        )
    return 1 if faults else 0


def resources(binary: bytes) -> tuple[int, int, int]:
    """Return registers of a thread, and bytes of its stack and local memory, to which registers spill."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        told = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", told.stdout)
    if found is None:
        raise ValueError(f"cuobjdump tells no resources: {told.stdout[:500]}")
    return int(found[1]), int(found[2]), int(found[3])


if __name__ == "__main__":
    sys.exit(main())
