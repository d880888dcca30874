"""One scorer's work in a run: what waits, what was begun, and what it took."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from lmsys_ensemble.hosting.budget import Speed
from lmsys_ensemble.hosting.progress import ScorerProgress
from lmsys_ensemble.hosting.scope import StopScope
from lmsys_ensemble.runtime.chunks import ChunkQueue
from lmsys_ensemble.runtime.items import Items, Positions
from lmsys_ensemble.runtime.results import Results
from lmsys_ensemble.scorers.base import Scorer


@dataclass
class Tally:
    """What a scorer's work took."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    n_chunks: int = 0
    n_rows: int = 0
    n_tokens: int = 0
    n_resumed: int = 0
    devices: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, phase: str, seconds: float) -> None:
        """Add one slot's seconds to a phase."""
        with self._lock:
            self.seconds[phase] += seconds

    def totals(self) -> dict[str, float]:
        """Return the seconds per phase; a thread that was left behind may go on adding to them."""
        with self._lock:
            return {name: round(value, 6) for name, value in self.seconds.items()}

    def count(self, n_rows: int, n_tokens: int) -> None:
        """Add a finished chunk."""
        with self._lock:
            self.n_chunks += 1
            self.n_rows += n_rows
            self.n_tokens += n_tokens


@dataclass(eq=False, repr=False)
class Job:
    """One scorer and its rows.

    Attributes
    ----------
    scorer : Scorer
        Not loaded.
    results : Results
        What came of its items.
    home : str
        Device on which it starts.
    devices : frozenset of str
        Devices that may work for it.
    weight : float
        What it counts for in the blend.
    progress : ScorerProgress
        Shows how far it is.
    scope : StopScope
        Knows whether it has failed.
    queue : ChunkQueue
        Chunks that nobody has begun.
    slots : set of int
        Slots that work for it.
    speed : Speed
        Seconds that it takes per character, on one slot.
    load_seconds : float or None
        What loading takes; None before it is known.
    swapping : bool
        Whether the queue holds swapped passes, which come last.
    n_to_score, cost_to_score : int
        Items that were queued, and what they cost.
    cost_begun : int
        What the chunks cost that slots have begun.
    tally : Tally
        What its work took.
    """

    scorer: Scorer
    results: Results
    home: str
    devices: frozenset[str]
    weight: float
    progress: ScorerProgress
    scope: StopScope
    queue: ChunkQueue = field(init=False)
    slots: set[int] = field(default_factory=set)
    speed: Speed = field(default_factory=Speed)
    load_seconds: float | None = None
    swapping: bool = False
    n_to_score: int = 0
    cost_to_score: int = 0
    cost_begun: int = 0
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.queue = ChunkQueue(self.items)

    @property
    def name(self) -> str:
        """The scorer's name."""
        return self.scorer.name

    @property
    def items(self) -> Items:
        """What there is to score."""
        return self.results.items

    @property
    def failure(self) -> BaseException | None:
        """Why the scorer failed as a whole, None if it did not."""
        return self.scope.failure_of(self.name)

    def enqueue(self, chunks: Sequence[Positions]) -> None:
        """Queue what is missing of some chunks."""
        for chunk in chunks:
            missing = self.results.want(chunk)
            if len(missing):
                self.queue.enqueue(missing)
                self.n_to_score += len(missing)
                self.cost_to_score += self.items.cost(missing)

    @property
    def seconds_waiting(self) -> float:
        """Projected seconds, on one slot, of what nobody has begun; 0 before the speed is known."""
        return self.queue.cost_waiting * self.speed.seconds_per_cost

    @property
    def seconds_to_do(self) -> float:
        """Projected seconds, on one slot, of what is not finished."""
        return (self.queue.cost_waiting + self.cost_begun) * self.speed.seconds_per_cost

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Its place among jobs: scorers that read no texts first, then the greater weight; of equal ones the faster."""
        return self.scorer.reads_texts, -self.weight, self.speed.seconds_per_cost
