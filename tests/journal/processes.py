"""Processes that work on a journal, for tests that watch or kill them."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 300
"""Seconds after which a test that waits for another process has failed."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="uses signals")


@contextmanager
def started(code, *arguments):
    """Yield a Python process that can import the tests, from code or the name of a module; kill it in the end."""
    how = ["-c", code] if "\n" in code else ["-m", code]
    command = [sys.executable, *how, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def run(code, *arguments):
    """Run a Python process to its end; return exit code and output."""
    with started(code, *arguments) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output
