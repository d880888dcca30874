"""A conformance check for scorers, for people who write their own."""

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import ContractError
from lmsys_ensemble.scorers.base import Scorer
from lmsys_ensemble.testing.conduct import check_conduct
from lmsys_ensemble.testing.identity import check_fingerprint, check_settings, fingerprint_of
from lmsys_ensemble.testing.results import check_results, example_battles


def check_scorer(scorer: Scorer, battles: Battles | None = None, *, tolerance: float = 1e-4) -> None:
    """Make sure that a scorer keeps the contract of `Scorer`.

    It loads, scores in several orders, parts and threads, closes, and loads again. It checks that

    - the constructor stores every argument by its name, and `Scorer.check` passes;
    - logits are finite float32 of shape (n_rows, n_classes), for no rows, too;
    - a row's logits depend on its own texts alone: not on other rows, their order, the thread, or earlier calls;
    - `prepare` and `score_prepared` give what `score` gives, also where another thread prepares;
    - swapped responses can be scored, and make no difference to a scorer that reads no texts;
    - a scorer that says it is shareable can score in two threads at once, and two replicas do not disturb each other;
    - reports of progress count every row once;
    - `close` frees what `load` took, and the scorer can be loaded again;
    - NumPy's random state, torch's threads and formats, working directory and environment stay as they were;
    - `fingerprint` holds JSON values, stays the same, and changes with every setting that is not among
      `Scorer.neutral_settings`.

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
    check_settings(scorer)
    scorer.check(rows)
    fingerprint = fingerprint_of(scorer)
    with check_conduct(scorer):
        check_results(scorer, rows, tolerance)
    if fingerprint_of(scorer) != fingerprint:
        raise ContractError(f"{scorer.name}: fingerprint() changed although no setting did")
    check_fingerprint(scorer, fingerprint)
