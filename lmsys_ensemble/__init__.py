"""Probabilities from several LLM preference classifiers at once.

>>> from lmsys_ensemble import Ensemble
>>> probabilities = Ensemble().predict(battles)  # doctest: +SKIP

Names are imported when they are first used, so that ``import lmsys_ensemble`` takes no time and never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmsys_ensemble._version import __version__

_EXPORTS = {
    "Battles": "lmsys_ensemble.data.battles",
    "Blender": "lmsys_ensemble.blending.blender",
    "ChoiceScorer": "lmsys_ensemble.scorers.choice",
    "ClassifierScorer": "lmsys_ensemble.scorers.classifier",
    "Ensemble": "lmsys_ensemble.ensemble",
    "EnsembleError": "lmsys_ensemble.errors",
    "FakeScorer": "lmsys_ensemble.testing.fake",
    "FaultyScorer": "lmsys_ensemble.testing.faults",
    "GemmaScorer": "lmsys_ensemble.scorers.gemma",
    "LexicalScorer": "lmsys_ensemble.scorers.lexical",
    "LlamaScorer": "lmsys_ensemble.scorers.llama",
    "RewardScorer": "lmsys_ensemble.scorers.reward",
    "SavedScorer": "lmsys_ensemble.scorers.saved",
    "Scorer": "lmsys_ensemble.scorers.base",
    "build_submission": "lmsys_ensemble.data.submission",
    "check_scorer": "lmsys_ensemble.testing.check",
    "fit_link": "lmsys_ensemble.blending.links",
    "parse_battles": "lmsys_ensemble.data.battles",
    "parse_labels": "lmsys_ensemble.data.labels",
    "read_table": "lmsys_ensemble.data.tables",
    "write_report": "lmsys_ensemble.report.page",
    "write_submission": "lmsys_ensemble.data.submission",
}

__all__ = [
    "Battles",
    "Blender",
    "ChoiceScorer",
    "ClassifierScorer",
    "Ensemble",
    "EnsembleError",
    "FakeScorer",
    "FaultyScorer",
    "GemmaScorer",
    "LexicalScorer",
    "LlamaScorer",
    "RewardScorer",
    "SavedScorer",
    "Scorer",
    "__version__",
    "build_submission",
    "check_scorer",
    "fit_link",
    "parse_battles",
    "parse_labels",
    "read_table",
    "write_report",
    "write_submission",
]

if TYPE_CHECKING:
    from lmsys_ensemble.blending.blender import Blender
    from lmsys_ensemble.blending.links import fit_link
    from lmsys_ensemble.data.battles import Battles, parse_battles
    from lmsys_ensemble.data.labels import parse_labels
    from lmsys_ensemble.data.submission import build_submission, write_submission
    from lmsys_ensemble.data.tables import read_table
    from lmsys_ensemble.ensemble import Ensemble
    from lmsys_ensemble.errors import EnsembleError
    from lmsys_ensemble.report.page import write_report
    from lmsys_ensemble.scorers.base import Scorer
    from lmsys_ensemble.scorers.choice import ChoiceScorer
    from lmsys_ensemble.scorers.classifier import ClassifierScorer
    from lmsys_ensemble.scorers.gemma import GemmaScorer
    from lmsys_ensemble.scorers.lexical import LexicalScorer
    from lmsys_ensemble.scorers.llama import LlamaScorer
    from lmsys_ensemble.scorers.reward import RewardScorer
    from lmsys_ensemble.scorers.saved import SavedScorer
    from lmsys_ensemble.testing.check import check_scorer
    from lmsys_ensemble.testing.fake import FakeScorer
    from lmsys_ensemble.testing.faults import FaultyScorer


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
