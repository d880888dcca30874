"""The GPU benchmark's check of itself, in the number format that it has on GPUs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("formats", "dtype"), [(["bf16", "nf4"], "bfloat16"), (["bf16"], "float32")])
def test_all_contenders_of_the_gpu_benchmark_run_and_agree(formats, dtype):
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--shape", "tiny", "--rows", "12"]
    command += ["--repeats", "1", "--formats", *formats, "--dtype", dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = re.findall(r"^\| (.*?) \| [\d,]+ \(", done.stdout, re.MULTILINE)
    ours = "ours (packed, SequenceAttention)"
    assert lines == ["notebook", "padded, eager", ours] * len(formats) + ["notebook", "padded", ours] * len(formats)
    differences = [float(value) for value in re.findall(r"([\d.e+-]+) \|$", done.stdout, re.MULTILINE)]
    assert len(differences) == len(lines)
    for start in range(0, len(lines), 3):
        assert max(differences[start : start + 3]) > 1e-9, "equal to the last bit: nothing was compared"
