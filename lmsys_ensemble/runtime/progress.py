"""Progress of every scorer: a bar on a terminal, one line a scorer elsewhere."""

import logging
import sys
import threading
import time
from typing import Any, Literal, TypeAlias

from tqdm import tqdm

logger = logging.getLogger(__name__)

Display: TypeAlias = Literal["auto", "bars", "lines", "off"]
"""``auto`` shows bars on a terminal and is silent elsewhere; ``lines`` writes one line a scorer when it is done."""


class StopScoring(BaseException):
    """Raised in a worker's thread to end it; not an `Exception`, so that no scorer catches it by accident."""


class ScorerProgress:
    """Shows how far one scorer is, and ends it when the run is being stopped.

    Parameters
    ----------
    name, device : str
        What the bar says.
    position : int
        Row of the terminal.
    display : {"auto", "bars", "lines", "off"}
        How it is shown.
    stop : threading.Event
        Set when the run is being stopped.
    """

    def __init__(self, name: str, device: str, position: int, display: Display, stop: threading.Event):
        self.name = name
        self.device = device
        self.position = position
        self.display = ("bars" if sys.stderr.isatty() else "off") if display == "auto" else display
        self.stop = stop
        self.n_rows = 0
        self.n_tokens = 0
        self._bar: tqdm[Any] | None = None
        self._unit = "row"
        self._start = time.perf_counter()

    def expect(self, n_rows: int, n_tokens: int) -> None:
        """Announce work, and end the scorer if the run is being stopped."""
        self._check_stop()
        self._start = time.perf_counter()
        self._unit = "tok" if n_tokens else "row"
        if self.display == "bars":
            self._bar = tqdm(
                total=n_tokens or n_rows,
                desc=f"{self.name} ({self.device})",
                unit=self._unit,
                unit_scale=True,
                position=self.position,
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def advance(self, n_rows: int, n_tokens: int) -> None:
        """Report finished work, and end the scorer if the run is being stopped."""
        self.n_rows += n_rows
        self.n_tokens += n_tokens
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.n_rows} rows", refresh=False)
            self._bar.update(n_tokens if self._unit == "tok" else n_rows)
        self._check_stop()

    def retried(self, why: str) -> None:
        """Log that a batch is run again."""
        logger.warning("%s (%s): %s", self.name, self.device, why)

    def row_failed(self, row: int, why: str) -> None:
        """Log that a row gets no logits."""
        logger.warning("%s (%s): row %d: %s", self.name, self.device, row, why)

    def close(self) -> None:
        """Close the bar, whether the work is done or not."""
        if self._bar is not None:
            self._bar.close()

    def finish(self) -> None:
        """Close the bar and, where asked for, write the line: the work is done."""
        self.close()
        seconds = time.perf_counter() - self._start
        rate = f", {self.n_tokens / max(seconds, 1e-9):,.0f} tokens/s" if self.n_tokens else ""
        line = f"{self.name} ({self.device}): {self.n_rows} rows in {seconds:.1f} s{rate}"
        if self.display == "lines":
            print(line, file=sys.stderr, flush=True)
        logger.info("%s", line)

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise StopScoring
