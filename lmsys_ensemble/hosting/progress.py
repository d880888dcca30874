"""Progress per scorer: what it has done, what it is doing, and when it must stop."""

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tqdm import tqdm

from lmsys_ensemble.hosting.display import Screen, Standing
from lmsys_ensemble.hosting.scope import StopScope

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class CallTally:
    """What a scorer has reported of the rows that one thread is scoring.

    Attributes
    ----------
    n_rows, n_tokens : int
        What is finished.
    failed : dict
        By position, why a row gets no logits.
    """

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
        Line of the screen.
    screen : Screen
        Where it is shown.
    scope : StopScope
        Says when the scorer is to be ended.
    rows : callable, optional
        Returns how many of the user's rows are finished, how many are wanted, and how many an open distinct row stands
        for; by default what is reported counts.
    unit : str
        What is counted: ``rows``, or ``passes`` where rows have two.

    Attributes
    ----------
    n_rows, n_tokens : int
        What has been reported: distinct rows, and their tokens.
    n_retries : int
        Batches that were run again.
    """

    def __init__(
        self,
        name: str,
        device: str,
        position: int,
        screen: Screen,
        scope: StopScope,
        rows: Callable[[], tuple[int, int, float]] | None = None,
        unit: str = "rows",
    ):
        self.name = name
        self.device = device
        self.screen = screen
        self.scope = scope
        self.unit = unit
        self.n_rows = self.n_tokens = self.n_retries = 0
        self._rows = rows or self._reported
        self._calls = threading.local()
        self._live: set[CallTally] = set()
        self._lock = threading.Lock()
        self._phase = "waiting"
        self._start: float | None = None
        self._expected = self._cost = self._cost_done = 0
        self._finished = False
        self._last: Standing | None = None
        screen.show(position, self.standing)

    def phase(self, what: str) -> None:
        """Say what is being done before rows are scored: ``fetching``, ``loading``, ``encoding``.

        Rows that other threads are scoring meanwhile are of more interest, and stay shown.
        """
        if self._start is None or what == "encoding":
            self._phase = what

    def expect(self, n_rows: int, cost: int) -> None:
        """Announce all work and what it costs, and end the scorer if the run is being stopped.

        Announced again (another slot steals work, or more has come up), it only grows.
        """
        self.scope.check(self.name)
        with self._lock:
            self._expected, self._cost = n_rows, cost
            if self._start is None:
                self.phase("encoding")
                self._start = time.perf_counter()

    def begin(self) -> CallTally:
        """Open the tally of the rows that the calling thread scores next."""
        with self._lock:
            self._live.discard(self._call)  # whatever came of it, it is over
            self._calls.open = CallTally()
            self._live.add(self._calls.open)
            self._phase = ""
        return self._call

    @property
    def _call(self) -> CallTally:
        if not hasattr(self._calls, "open"):
            self._calls.open = CallTally()
        call: CallTally = self._calls.open
        return call

    def advance(self, n_rows: int, n_tokens: int) -> None:
        """Report finished work, and end the scorer if the run is being stopped."""
        call = self._call
        call.n_rows += n_rows
        call.n_tokens += n_tokens
        with self._lock:
            self.n_rows += n_rows
            self.n_tokens += n_tokens
        self.scope.check(self.name)

    def done(self, cost: int) -> None:
        """Report what a finished chunk cost; the time left is projected from it, as long rows come first."""
        with self._lock:
            self._live.discard(self._call)
            self._cost_done += cost

    def retried(self, why: str) -> None:
        """Log that a batch is run again."""
        with self._lock:
            self.n_retries += 1
        logger.warning("%s (%s): %s", self.name, self.device, why)

    def row_failed(self, row: int, why: str) -> None:
        """Note why a row gets no logits, by its position among those that the calling thread scores."""
        self._call.failed[row] = why

    def close(self) -> None:
        """Stop the clock of the bar, whether the work is done or not."""
        with self._lock:
            if self._last is None:
                now = self._standing_now()
                is_whole = not now.phase and now.n_done >= now.n_wanted
                self._last = replace(now, left="", phase="" if is_whole or self._finished else now.phase or "stopped")

    def finish(self) -> None:
        """Stop the clock of the bar and, with ``display="lines"``, write the line: the work is done."""
        with self._lock:
            if self._finished:
                return
            self._finished = True
        self.close()
        seconds = 0.0 if self._start is None else time.perf_counter() - self._start
        rate = f", {self.n_tokens / max(seconds, 1e-9):,.0f} tokens/s" if self.n_tokens else ""
        line = f"{self.name} ({self.device}): {self._rows()[0]} {self.unit} in {seconds:.1f} s{rate}"
        if self.screen.display == "lines":
            print(line, file=sys.stderr, flush=True)
        logger.info("%s", line)

    def standing(self) -> Standing:
        """Return how far the scorer is."""
        with self._lock:
            return self._last or self._standing_now()

    def _standing_now(self) -> Standing:
        seconds = 0.0 if self._start is None else time.perf_counter() - self._start
        n_done, n_wanted, n_each = self._rows()
        n_items = sum(call.n_rows for call in self._live)  # of chunks at work, of which no row counts as finished yet
        left = ""
        if self._cost_done and self._cost > self._cost_done:
            left = str(tqdm.format_interval(seconds * (self._cost - self._cost_done) / self._cost_done))
        return Standing(
            self.name, self.device, self._phase, min(n_done + round(n_each * n_items), n_wanted), n_wanted, self.unit,
            self.screen.elapsed(), self.n_tokens / seconds if seconds else 0.0, left,
        )  # fmt: skip

    def _reported(self) -> tuple[int, int, float]:
        return self.n_rows - sum(call.n_rows for call in self._live), self._expected, 1.0
