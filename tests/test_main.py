"""``python -m lmsys_ensemble`` is the command."""

import subprocess
import sys

import pytest

from lmsys_ensemble._version import __version__


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(["--version"], 0, f"lmsys-ensemble {__version__}\n"), (["submitt"], 2, "")],
)
def test_the_package_can_be_run_as_a_module(words, code, said):
    ended = subprocess.run(
        [sys.executable, "-m", "lmsys_ensemble", *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode == code, ended.stderr
    assert said in ended.stdout
    assert ("usage: lmsys-ensemble" in ended.stderr) == (code == 2)
