"""Processes that work on a journal, for tests that watch or kill them."""

import multiprocessing
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


@contextmanager
def forked(work, *arguments):
    """Yield a process, and a stream from the pipe that `work` is given before its arguments; kill it in the end.

    The process is forked off one that has imported the module of `work` already, for tests that need many.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender, *arguments))
    process.start()
    sender.close()  # the other end is the process's alone, so that it ends where the process does
    try:
        with receiver, open(receiver.fileno(), closefd=False) as stream:
            yield process, stream
    finally:
        process.kill()
        process.join()
        process.close()


def run(code, *arguments):
    """Run a Python process to its end; return exit code and output."""
    with started(code, *arguments) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output
