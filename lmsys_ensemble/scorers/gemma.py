"""Scorer for Gemma 2 and Gemma 3 classifiers."""

from typing import ClassVar

from lmsys_ensemble.modeling.recipe import MODEL_TYPES
from lmsys_ensemble.scorers.classifier import ClassifierScorer


class GemmaScorer(ClassifierScorer):
    """A Gemma 2 or Gemma 3 classifier; parameters as in `ClassifierScorer`.

    Gemma 2 caps its attention scores, and so does scoring; kernels that cannot (``sdpa``) are refused for it.
    ``soft_capping=False`` switches it off for a model that was trained without. Without a recipe, the template of the
    public Gemma notebooks (``kaggle-gemma``) is assumed.
    """

    default_template: ClassVar[str] = "kaggle-gemma"
    model_types: ClassVar[tuple[str, ...]] = MODEL_TYPES["gemma"]
