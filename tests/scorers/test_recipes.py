"""Which recipe a classifier follows."""

import logging
import shutil

import pytest

from lmsys_ensemble.errors import ConfigError, IntegrityError
from lmsys_ensemble.modeling import assembly
from lmsys_ensemble.modeling.recipe import write_recipe
from lmsys_ensemble.scorers.llama import LlamaScorer
from lmsys_ensemble.scorers.recipes import followed_recipe, trained_recipe


def test_without_a_trained_recipe_settings_count_and_defaults_fill_the_rest(checkpoints, caplog):
    scorer = LlamaScorer(str(checkpoints.base("llama")), adapter=str(checkpoints.adapter("llama")), max_tokens=99)
    assert trained_recipe(scorer, verify=True) is None
    recipe = followed_recipe(scorer, warn=False)
    assert (recipe.max_tokens, recipe.template.name, recipe.truncation) == (99, "kaggle-llama", "balanced")
    assert (recipe.special_tokens.bos, recipe.special_tokens.eos, recipe.soft_capping) == (True, True, True)
    assert "recipe" not in caplog.text
    scorer.template, scorer.truncation, scorer.bos, scorer.soft_capping = "turns", "tail", False, False
    with caplog.at_level(logging.WARNING):
        recipe = followed_recipe(scorer, warn=True)
    assert (recipe.template.name, recipe.truncation) == ("turns", "tail")
    assert (recipe.special_tokens.bos, recipe.soft_capping) == (False, False)
    assert "template turns and max_tokens 99 are assumed to be what it was trained with" in caplog.text


def test_a_wrong_setting_is_refused_under_the_scorers_name(checkpoints):
    scorer = LlamaScorer(str(checkpoints.base("llama")), name="mine", max_tokens=-5)
    with pytest.raises(ConfigError, match=r"settings of scorer 'mine'.*max_tokens"):
        followed_recipe(scorer, warn=False)


def test_a_file_that_has_changed_under_its_recipe_is_told_only_where_that_is_asked(checkpoints, trained):
    shutil.copy(checkpoints.adapter("gemma2") / "adapter_model.safetensors", trained)
    scorer = LlamaScorer(str(checkpoints.base("llama")), adapter=str(trained))
    assert trained_recipe(scorer, verify=False).max_tokens == 70
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors is not the file that was saved"):
        trained_recipe(scorer, verify=True)


def test_settings_that_contradict_the_recipe_are_refused_before_anything_is_loaded(checkpoints, trained, monkeypatch):
    monkeypatch.setattr(assembly, "load_classifier", lambda *_, **__: pytest.fail("loaded"))
    scorer = LlamaScorer(
        str(checkpoints.base("llama")),
        adapter=str(trained),
        device="cpu",
        template="kaggle-llama",
        max_tokens=2048,
        truncation="balanced",
        bos=False,
        eos=True,
        pad_token_id=0,
        soft_capping=False,
    )
    with pytest.raises(ConfigError) as caught:
        scorer.load()
    for said in (
        str(trained),
        "template.name is 'kaggle-llama', trained with 'kaggle-gemma'",
        "max_tokens is 2048, trained with 70",
        "truncation is 'balanced', trained with 'tail'",
        "special_tokens.bos is False, trained with True",
        "special_tokens.eos is True, trained with False",
        "special_tokens.pad_token_id is 0, trained with 2",
        "soft_capping is False, trained with True",
    ):
        assert said in str(caught.value)


def test_a_revision_is_compared_only_with_one_that_the_recipe_states(checkpoints, trained):
    def scorer():
        return LlamaScorer(str(checkpoints.base("llama")), adapter=str(trained), revision="abc")

    assert scorer().recipe().base_model.revision is None
    recipe = scorer().recipe()
    stated = recipe.base_model.model_copy(update={"revision": "def"})
    write_recipe(trained, recipe.model_copy(update={"base_model": stated}), ())
    with pytest.raises(ConfigError, match=r"base_model\.revision is 'abc', trained with 'def'"):
        scorer().recipe()
