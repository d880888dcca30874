"""Standard output and standard error that may be closed by whoever reads them, as ``| head`` does."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO, cast

from lmsys_ensemble.terminal import printable


class PatientStream:
    """Standard error for long work: once nobody reads it, what is written is dropped, and the work goes on.

    Parameters
    ----------
    stream : text stream
        What is written to while somebody reads.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            _turn_to_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def patient_streams() -> Iterator[None]:
    """Let work go on where nobody reads standard error, and end it quietly where nobody reads standard output.

    What a terminal's encoding lacks (or a file's name that is no UTF-8) is shown escaped instead of ending a command.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with redirect_stderr(cast(TextIO, PatientStream(sys.stderr))), _printable_warnings():
        try:
            yield
        finally:
            try:
                sys.stdout.flush()
            except BrokenPipeError:  # or Python complains of it when it ends
                _turn_to_nowhere(sys.stdout)
            sys.stderr.flush()


@contextmanager
def _printable_warnings() -> Iterator[None]:
    """Write out what a terminal would obey in Python's warnings, which may quote names and files of strangers."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda *parts, **options: printable(usual(*parts, **options))
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _turn_to_nowhere(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
