"""The CUDA path where there is no GPU; in a process of its own, since PyTorch is changed for good in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
CAPABILITIES = {"7.5": "T4", "8.0": "A100", "9.0": "H100"}
ONLY = {"9.0": ["-k", "scorer or warming"]}
"""What is checked where the rest would be as on another GPU."""

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine to compile the device guard with"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="this build of PyTorch has CUDA; GPUs are not pretended"),
]


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """Return the device guard as a library."""
    path = tmp_path_factory.mktemp("guard") / "guard.so"
    torch_folder = Path(torch.__file__).parent
    command = ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{torch_folder}/include", str(HERE / "guard.cpp")]
    subprocess.run([*command, "-o", str(path), f"-L{torch_folder}/lib", "-lc10"], check=True)
    return path


@pytest.mark.parametrize("capability", CAPABILITIES, ids=CAPABILITIES.get)
def test_the_library_runs_on_a_pretended_gpu(guard, capability):
    environment = {
        **os.environ,
        "LMSYS_ENSEMBLE_PRETENDED_CAPABILITY": capability,
        "LMSYS_ENSEMBLE_PRETENDED_GUARD": str(guard),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "python_files=check_*.py"]
    done = subprocess.run(
        [*command, *ONLY.get(capability, []), str(HERE / "pretended")],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
