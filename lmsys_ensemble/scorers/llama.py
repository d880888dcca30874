"""Scorer for classifiers of the Llama architecture."""

from typing import ClassVar

from lmsys_ensemble.modeling.recipe import MODEL_TYPES
from lmsys_ensemble.scorers.classifier import ClassifierScorer


class LlamaScorer(ClassifierScorer):
    """A Llama 3 classifier, or any of the Llama architecture (SmolLM2); parameters as in `ClassifierScorer`.

    Without a recipe, the template of the public Llama notebook (``kaggle-llama``) is assumed.
    """

    default_template: ClassVar[str] = "kaggle-llama"
    model_types: ClassVar[tuple[str, ...]] = MODEL_TYPES["llama"]
