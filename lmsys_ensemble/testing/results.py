"""Logits: their shape, and that nothing but a row's own texts decides them."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import ContractError
from lmsys_ensemble.probabilities import Logits, softmax
from lmsys_ensemble.progress import NoProgress
from lmsys_ensemble.scorers.base import Costs, Scorer


def example_battles() -> Battles:
    """Return a few battles of different lengths and turns."""
    return Battles(
        pd.Index(["short", "long", "two turns", "empty"]),
        [("2 + 2?",), ("Why is the sky blue?",), ("Hello", "And in French?"), ("Say nothing.",)],
        [("4",), ("Air scatters blue light more than red. " * 20,), ("Hi", "Bonjour"), ("",)],
        [("5",), ("It reflects the sea.",), ("Good day", "Salut, comment ça va ?"), ("Nothing.",)],
    )


class Count(NoProgress):
    """Adds up the rows that a scorer says it has finished."""

    def __init__(self) -> None:
        self.n_rows = 0

    def advance(self, n_rows: int, n_tokens: int) -> None:
        """Add rows."""
        self.n_rows += n_rows


def check_results(scorer: Scorer, rows: Battles, tolerance: float) -> None:
    """Load, score in several ways, close, and load again; see `lmsys_ensemble.check_scorer`."""
    with scorer:
        logits = _score(scorer, rows)
        backwards = np.arange(len(rows))[::-1]
        _compare("other rows' order", _score(scorer, rows.take(backwards)), logits[backwards], tolerance)
        _compare("fewer rows", _score(scorer, rows[:1]), logits[:1], tolerance)
        _compare("a second call", _score(scorer, rows), logits, tolerance)
        _score(scorer, rows[:0])
        swapped = _score(scorer, rows.swapped())
        if not scorer.reads_texts:
            _compare("swapping the responses, which a scorer that reads no texts cannot see,", swapped, logits, 0)
        _check_progress(scorer, rows)
        _check_costs(scorer, rows)
        with ThreadPoolExecutor(1) as elsewhere:
            prepared = elsewhere.submit(scorer.prepare, rows).result()
        of_prepared = _checked(scorer, scorer.score_prepared(prepared), rows)
        _compare("preparing in another thread", of_prepared, logits, tolerance)
        if scorer.shareable:
            for other in _at_once(lambda: _score(scorer, rows), lambda: _score(scorer, rows)):
                _compare("scoring in two threads at once", other, logits, tolerance)
    with scorer:
        _compare("closing and loading again", _score(scorer, rows), logits, tolerance)
    first, second = scorer.replica(), scorer.replica()
    for other in _at_once(lambda: _whole(first, rows), lambda: _whole(second, rows)):
        _compare("loading and scoring replicas in two other threads at once", other, logits, tolerance)


def _whole(scorer: Scorer, rows: Battles) -> Logits:
    with scorer:
        return _score(scorer, rows)


def _at_once(*calls: Callable[[], Logits]) -> list[Logits]:
    """Return what functions return that begin at the same moment, each in a thread of its own."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], Logits]) -> Logits:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(run, call) for call in calls]]


def _check_progress(scorer: Scorer, rows: Battles) -> None:
    before, count = scorer.progress, Count()
    scorer.progress = count
    try:
        _score(scorer, rows)
    finally:
        scorer.progress = before
    if count.n_rows not in (0, len(rows)):
        raise ContractError(
            f"{scorer.name}: progress.advance() was told of {count.n_rows} rows in all, and {len(rows)} were scored; "
            "tell of every row once, or of none"
        )


def _check_costs(scorer: Scorer, rows: Battles) -> None:
    costs = scorer.costs(rows)
    if costs is not None and (not isinstance(costs, Costs) or costs.tokens.shape != (len(rows),)):
        raise ContractError(f"{scorer.name}: costs() must return None or Costs with tokens of shape ({len(rows)},)")


def _score(scorer: Scorer, battles: Battles) -> Logits:
    return _checked(scorer, scorer.score(battles), battles)


def _checked(scorer: Scorer, logits: Logits, battles: Battles) -> Logits:
    expected = (len(battles), scorer.task.n_classes)
    if not isinstance(logits, np.ndarray) or logits.dtype != np.float32 or logits.shape != expected:
        got = f"{logits.dtype} {logits.shape}" if isinstance(logits, np.ndarray) else type(logits).__name__
        raise ContractError(f"{scorer.name}: score() must return a float32 array of shape {expected}, got {got}")
    if not np.isfinite(logits).all():
        raise ContractError(f"{scorer.name}: score() returned NaN or infinite logits")
    return logits


def _compare(change: str, got: Logits, expected: Logits, tolerance: float) -> None:
    difference = float(np.abs(softmax(got) - softmax(expected)).max())
    if difference > tolerance:
        raise ContractError(f"{change} changed a probability by {difference:.2g}; at most {tolerance} is allowed")
