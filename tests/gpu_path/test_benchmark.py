"""The GPU benchmark's check of itself, in the number format that it has on GPUs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number_format", "dtype"), [("bf16", "bfloat16"), ("bf16", "float32"), ("nf4", "bfloat16")])
def test_all_contenders_of_the_gpu_benchmark_run_and_agree(number_format, dtype):
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--shape", "tiny", "--rows", "12"]
    command += ["--repeats", "1", "--formats", number_format, "--dtype", dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = re.findall(r"^\| (.*?) \| [\d,]+ \(", done.stdout, re.MULTILINE)
    ours = "ours (packed, SequenceAttention)"
    assert lines == ["notebook", "padded, eager", ours, "notebook", "padded", ours]
    differences = [float(value) for value in re.findall(r"([\d.e+-]+) \|$", done.stdout, re.MULTILINE)]
    assert max(differences) > 1e-9, "equal to the last bit: nothing was compared"
