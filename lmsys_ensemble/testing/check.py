"""A conformance check for scorers, for people who write their own."""

import json

import numpy as np
import pandas as pd

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import ContractError
from lmsys_ensemble.probabilities import Logits, softmax
from lmsys_ensemble.scorers.base import Scorer


def check_scorer(scorer: Scorer, battles: Battles | None = None, *, tolerance: float = 1e-4) -> None:
    """Make sure that a scorer keeps the contract of `Scorer`.

    It loads, scores in several orders and parts, closes, and loads again.

    Parameters
    ----------
    scorer : Scorer
        Not loaded.
    battles : Battles, optional
        What to score: at least two rows; by default a few that come with the library. A `SavedScorer` needs its own.
    tolerance : float
        Largest difference of a probability that order and batch composition may make.

    Raises
    ------
    ContractError
        Says which part of the contract is broken.
    """
    rows = example_battles() if battles is None else battles
    if len(rows) < 2:
        raise ContractError("check_scorer needs at least two battles")
    _check_settings(scorer)
    fingerprint = _fingerprint(scorer)
    with scorer:
        logits = _score(scorer, rows)
        backwards = np.arange(len(rows))[::-1]
        _compare("other rows' order", _score(scorer, rows.take(backwards)), logits[backwards], tolerance)
        _compare("fewer rows", _score(scorer, rows[:1]), logits[:1], tolerance)
        _compare("a second call", _score(scorer, rows), logits, tolerance)
    with scorer:
        _compare("closing and loading again", _score(scorer, rows), logits, tolerance)
    if _fingerprint(scorer) != fingerprint:
        raise ContractError(f"{scorer.name}: fingerprint() changed although no setting did")


def example_battles() -> Battles:
    """Return a few battles of different lengths and turns."""
    return Battles(
        pd.Index(["short", "long", "two turns", "empty"]),
        [("2 + 2?",), ("Why is the sky blue?",), ("Hello", "And in French?"), ("Say nothing.",)],
        [("4",), ("Air scatters blue light more than red. " * 20,), ("Hi", "Bonjour"), ("",)],
        [("5",), ("It reflects the sea.",), ("Good day", "Salut, comment ça va ?"), ("Nothing.",)],
    )


def _check_settings(scorer: Scorer) -> None:
    try:
        settings = scorer.settings()
    except AttributeError as error:
        raise ContractError(
            f"{type(scorer).__name__}'s constructor must store every argument by its name: {error}"
        ) from error
    again = type(scorer)(**settings).settings()
    if again != settings:
        raise ContractError(f"{type(scorer).__name__}'s constructor changes its arguments: {settings} became {again}")
    if not isinstance(getattr(scorer, "name", None), str) or not scorer.name:
        raise ContractError(f"{type(scorer).__name__} needs a name")


def _fingerprint(scorer: Scorer) -> str:
    try:
        return json.dumps(scorer.fingerprint(), sort_keys=True)
    except TypeError as error:
        raise ContractError(f"{scorer.name}: fingerprint() must hold JSON values only: {error}") from error


def _score(scorer: Scorer, battles: Battles) -> Logits:
    logits = scorer.score(battles)
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
