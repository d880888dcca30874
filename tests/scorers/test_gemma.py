"""What GemmaScorer takes, and what it assumes where a model has no recipe."""

import logging

import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.scorers.gemma import GemmaScorer


def test_a_model_of_another_family_is_refused_with_the_cure(checkpoints):
    base, adapter = checkpoints.base("llama"), checkpoints.adapter("llama")
    with pytest.raises(ConfigError, match=r"is a 'llama' model\. Use ClassifierScorer"):
        GemmaScorer(str(base), adapter=str(adapter), device="cpu").load()


def test_without_a_recipe_the_notebooks_habits_are_assumed_and_said(checkpoints, caplog):
    scorer = GemmaScorer(str(checkpoints.base("gemma2")), adapter=str(checkpoints.adapter("gemma2")))
    with caplog.at_level(logging.WARNING):
        assert scorer.recipe().template.name == "kaggle-gemma"
    assert "no recipe.json" in caplog.text
    assert "template kaggle-gemma and max_tokens 2048 are assumed" in caplog.text
