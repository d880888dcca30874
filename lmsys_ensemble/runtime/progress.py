"""Progress of every scorer: a bar on a terminal, one line a scorer elsewhere."""

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tqdm import tqdm

logger = logging.getLogger(__name__)

Display: TypeAlias = Literal["auto", "bars", "lines", "off"]
"""``auto`` shows bars on a terminal and is silent elsewhere; ``lines`` writes one line a scorer when it is done."""

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} rows [{elapsed}{postfix}]"


class StopScoring(BaseException):
    """Raised in a worker's thread to end it; not an `Exception`, so that no scorer catches it by accident."""


@dataclass
class Call:
    """What a scorer has told about the rows that one thread is scoring."""

    n_rows: int = 0
    n_tokens: int = 0
    failed: dict[int, str] = field(default_factory=dict)


class ScorerProgress:
    """Shows how far one scorer is, in all its threads together, and ends it when the run is being stopped.

    Parameters
    ----------
    name, device : str
        What the bar says.
    position : int
        Row of the terminal.
    display : {"auto", "bars", "lines", "off"}
        How it is shown.
    stopping : callable
        Returns whether the scorer is to be ended.

    Attributes
    ----------
    n_rows, n_tokens : int
        What has been scored.
    n_retries : int
        Batches that were run again.
    """

    def __init__(self, name: str, device: str, position: int, display: Display, stopping: Callable[[], bool]):
        self.name = name
        self.device = device
        self.position = position
        self.display = ("bars" if sys.stderr.isatty() else "off") if display == "auto" else display
        self.stopping = stopping
        self.n_rows = self.n_tokens = self.n_retries = 0
        self._calls = threading.local()
        self._lock = threading.Lock()
        self._bar: tqdm[Any] | None = None
        self._start: float | None = None
        self._cost = self._cost_done = 0
        self._finished = False

    def expect(self, n_rows: int, cost: int) -> None:
        """Announce work and what it costs in all, and end the scorer if the run is being stopped.

        Announced twice (another device helps, or more work has come up), the bar only grows.
        """
        self._check_stop()
        with self._lock:
            self._cost = cost
            self._start = self._start or time.perf_counter()
            if self._bar is not None:
                self._bar.total = n_rows
            elif self.display == "bars":
                self._bar = tqdm(
                    total=n_rows, desc=f"{self.name} ({self.device})", position=self.position, dynamic_ncols=True,
                    bar_format=_BAR, file=sys.stderr,
                )  # fmt: skip

    def begin(self) -> Call:
        """Open the account of the rows that the calling thread scores next."""
        self._calls.open = Call()
        return self._call

    @property
    def _call(self) -> Call:
        if not hasattr(self._calls, "open"):
            self._calls.open = Call()
        call: Call = self._calls.open
        return call

    def advance(self, n_rows: int, n_tokens: int) -> None:
        """Report finished work, and end the scorer if the run is being stopped."""
        call = self._call
        call.n_rows += n_rows
        call.n_tokens += n_tokens
        with self._lock:
            self.n_rows += n_rows
            self.n_tokens += n_tokens
            if self._bar is not None:
                self._bar.set_postfix_str(self._rate(), refresh=False)
                self._bar.update(n_rows)
        self._check_stop()

    def done(self, cost: int) -> None:
        """Report what a finished chunk cost; the time left is reckoned from it, as long rows come first."""
        with self._lock:
            self._cost_done += cost

    def retried(self, why: str) -> None:
        """Log that a batch is run again."""
        with self._lock:
            self.n_retries += 1
        logger.warning("%s (%s): %s", self.name, self.device, why)

    def row_failed(self, row: int, why: str) -> None:
        """Take note of why a row, by its position among those that the calling thread scores, gets no logits."""
        self._call.failed[row] = why

    def close(self) -> None:
        """Close the bar, whether the work is done or not."""
        if self._bar is not None:
            self._bar.close()

    def finish(self) -> None:
        """Close the bar and, where asked for, write the line: the work is done."""
        with self._lock:
            if self._finished:
                return
            self._finished = True
        self.close()
        seconds = 0.0 if self._start is None else time.perf_counter() - self._start
        rate = f", {self.n_tokens / max(seconds, 1e-9):,.0f} tokens/s" if self.n_tokens else ""
        line = f"{self.name} ({self.device}): {self.n_rows} rows in {seconds:.1f} s{rate}"
        if self.display == "lines":
            print(line, file=sys.stderr, flush=True)
        logger.info("%s", line)

    def _rate(self) -> str:
        seconds = time.perf_counter() - (self._start or 0)
        parts = [f"{self.n_tokens / max(seconds, 1e-9):,.0f} tokens/s"] if self.n_tokens else []
        if self._cost_done:
            left = seconds * max(self._cost - self._cost_done, 0) / self._cost_done
            parts.append(f"{tqdm.format_interval(left)} left")
        return ", ".join(parts)

    def _check_stop(self) -> None:
        if self.stopping():
            raise StopScoring
