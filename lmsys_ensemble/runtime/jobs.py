"""One scorer's work in a run: which rows are waiting, what came of those that are done."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.runtime.budget import Speed
from lmsys_ensemble.runtime.items import Items, Positions
from lmsys_ensemble.runtime.progress import ScorerProgress
from lmsys_ensemble.scorers.base import Scorer

MISSING, DONE, FAILED = 0, 1, 2
"""What `Job.status` says of an item."""


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
        """Add seconds of a slot to a phase."""
        with self._lock:
            self.seconds[phase] += seconds

    def totals(self) -> dict[str, float]:
        """Return the seconds of every phase; a thread that was left behind may go on adding to them."""
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
    items : Items
        What there is to score; not all of it need be wanted.
    home : str
        Device on which it starts.
    devices : frozenset of str
        Devices that may work for it.
    weight : float
        What it counts for in the blend.
    progress : ScorerProgress
        Shows how far it is.
    logits : ndarray of shape (n_items, n_classes)
        NaN where there are none.
    status : ndarray of shape (n_items,)
        `MISSING`, `DONE` or `FAILED`.
    reasons : dict
        Why an item failed.
    queue : deque of ndarray
        Chunks that nobody has begun.
    slots : set of int
        Slots that work for it.
    wanted : ndarray of bool of shape (n_items,)
        Items that the run needs of it.
    n_to_score, cost_to_score : int
        Those of them that no earlier run has finished; what these cost.
    exchanging : bool
        Whether the queue holds exchanged passes, which come last.
    lock : threading.Lock
        Held by whoever changes results.
    """

    scorer: Scorer
    items: Items
    home: str
    devices: frozenset[str]
    weight: float
    progress: ScorerProgress
    logits: Logits = field(init=False)
    status: NDArray[np.uint8] = field(init=False)
    wanted: NDArray[np.bool_] = field(init=False)
    reasons: dict[int, str] = field(default_factory=dict)
    queue: deque[Positions] = field(default_factory=deque)
    slots: set[int] = field(default_factory=set)
    speed: Speed = field(default_factory=Speed)
    load_seconds: float | None = None
    failure: BaseException | None = None
    exchanging: bool = False
    n_to_score: int = 0
    cost_to_score: int = 0
    cost_begun: int = 0
    cost_waiting: int = 0
    tally: Tally = field(default_factory=Tally)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.logits = np.full((len(self.items), self.scorer.task.n_classes), np.nan, dtype=np.float32)
        self.status = np.zeros(len(self.items), dtype=np.uint8)
        self.wanted = np.zeros(len(self.items), dtype=bool)

    @property
    def name(self) -> str:
        """The scorer's name."""
        return self.scorer.name

    def enqueue(self, chunks: Sequence[Positions]) -> None:
        """Add what is missing of some chunks to the queue."""
        for chunk in chunks:
            self.wanted[chunk] = True
            rest = chunk[self.status[chunk] == MISSING]
            if len(rest):
                cost = self.items.cost(rest)
                self.queue.append(rest)
                self.cost_waiting += cost
                self.n_to_score += len(rest)
                self.cost_to_score += cost

    def restore(
        self, found: Positions, logits: Logits, reasons: Mapping[str, str], is_retried: Callable[[str], bool]
    ) -> None:
        """Take over what an earlier run has finished.

        Parameters
        ----------
        found : ndarray of shape (n_items,)
            Where every item stands in `logits`, -1 where it does not.
        logits : ndarray of shape (n_finished, n_classes)
            What was finished.
        reasons : mapping of str to str
            Hashes of those that failed, and why.
        is_retried : callable
            Tells by its reason whether a row that failed is scored again.
        """
        there = np.flatnonzero(found >= 0)
        if len(there):
            self.logits[there] = logits[found[there]]
            self.status[there] = DONE
        for item, why in zip(self.items.locate(list(reasons)).tolist(), reasons.values(), strict=True):
            if item >= 0 and is_retried(why):
                self.status[item] = MISSING
            elif item >= 0:
                self.status[item], self.reasons[item] = FAILED, why
        self.tally.n_resumed = int((self.status != MISSING).sum())

    def store(self, chunk: Positions, logits: Logits, reasons: Mapping[int, str]) -> None:
        """Keep what came of a chunk; `reasons` by position in it."""
        values, status = logits.astype(np.float32), np.full(len(chunk), DONE, dtype=np.uint8)
        for position, why in reasons.items():
            values[position], status[position] = np.nan, FAILED
            self.reasons[int(chunk[position])] = why
        self.logits[chunk] = values
        self.status[chunk] = status  # last: others look at the logits of what is done

    def take(self) -> Positions:
        """Take the next chunk from the queue."""
        chunk = self.queue.popleft()
        self.cost_waiting -= self.items.cost(chunk)
        return chunk

    def drop_queue(self) -> None:
        """Forget what nobody has begun."""
        self.queue.clear()
        self.cost_waiting = 0

    def count_rows(self) -> tuple[int, int, float]:
        """Return how many of the user's rows are finished, how many are wanted, and how many an open item stands for.

        Where rows are scored both ways, passes are counted.
        """
        rows = self.items.multiplicity * self.wanted
        n_done, n_wanted = int(rows[self.status != MISSING].sum()), int(rows.sum())
        n_open = max(int((self.wanted & (self.status == MISSING)).sum()), 1)
        return n_done, n_wanted, (n_wanted - n_done) / n_open

    @property
    def n_wanted(self) -> int:
        """Items that the run needs."""
        return int(self.wanted.sum())

    @property
    def n_finished(self) -> int:
        """Items that the run needs and has, those that failed among them."""
        return int((self.wanted & (self.status != MISSING)).sum())

    @property
    def failed(self) -> dict[int, str]:
        """Why items that the run needs failed; an earlier run may have known others."""
        return {item: why for item, why in self.reasons.items() if self.wanted[item]}

    @property
    def seconds_waiting(self) -> float:
        """Projected seconds, on one slot, of what nobody has begun; 0 before the speed is known."""
        return self.cost_waiting * self.speed.seconds_per_cost

    @property
    def seconds_to_do(self) -> float:
        """Projected seconds of what is not finished."""
        return (self.cost_waiting + self.cost_begun) * self.speed.seconds_per_cost

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Where it stands among jobs: what only looks up first, then the greater weight; of equal ones the faster."""
        return self.scorer.reads_texts, -self.weight, self.speed.seconds_per_cost
