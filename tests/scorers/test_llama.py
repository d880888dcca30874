"""What LlamaScorer takes, and what it assumes where a model has no recipe."""

import logging

import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.scorers.llama import LlamaScorer


def test_a_model_of_another_family_is_refused_with_the_cure(checkpoints):
    base, adapter = checkpoints.base("gemma2"), checkpoints.adapter("gemma2")
    with pytest.raises(ConfigError, match=r"is a 'gemma2' model\. Use ClassifierScorer"):
        LlamaScorer(str(base), adapter=str(adapter), device="cpu").load()


def test_without_a_recipe_the_notebooks_habits_are_assumed_and_said(checkpoints, caplog):
    scorer = LlamaScorer(str(checkpoints.base("llama")), adapter=str(checkpoints.adapter("llama")))
    with caplog.at_level(logging.WARNING):
        assert scorer.recipe().template.name == "kaggle-llama"
    assert "no recipe.json" in caplog.text
    assert "template kaggle-llama and max_tokens 2048 are assumed" in caplog.text
