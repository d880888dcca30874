"""The GPU benchmark's check of itself, in the number format that it has on GPUs."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("formats", "dtype"), [(["bf16", "nf4"], "bfloat16"), (["bf16"], "float32")])
def test_all_contenders_of_the_gpu_benchmark_run_and_agree(formats, dtype, monkeypatch, capsys):
    words = ["--device", "cpu", "--shape", "tiny", "--rows", "12", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words, "--formats", *formats, "--dtype", dtype])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmarks/gpu.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    lines = re.findall(r"^\| (.*?) \| [\d,]+ \(", printed.out, re.MULTILINE)
    ours = "ours (packed, SequenceAttention)"
    assert lines == ["notebook", "padded, eager", ours] * len(formats) + ["notebook", "padded", ours] * len(formats)
    differences = [float(value) for value in re.findall(r"([\d.e+-]+) \|$", printed.out, re.MULTILINE)]
    assert len(differences) == len(lines)
    for start in range(0, len(lines), 3):
        assert max(differences[start : start + 3]) > 1e-9, "equal to the last bit: nothing was compared"
