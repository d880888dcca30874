"""What is written after training: whole, known by its run, and with the rows that it has learned from."""

import shutil

import numpy as np
import pytest
import yaml

from lmsys_ensemble.data.corpus import as_labelled
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.learned_rows import LEARNED_FILE, read_learned_rows
from lmsys_ensemble.modeling.recipe import read_recipe, write_recipe
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training.adapter import train_adapter
from lmsys_ensemble.training.finishing import FILES, measure_again
from lmsys_ensemble.training.job import plan_job
from lmsys_ensemble.training.settings import TrainSettings
from tests.training.staged import SETTINGS, TABLE

DATA = as_labelled(TABLE, THREE_WAY)
LEARN, HELD, NOBODY = (DATA.take(np.arange(*bounds)) for bounds in ((60,), (60, 80), (0,)))


@pytest.fixture(scope="module")
def base(checkpoints):
    return checkpoints.base("llama")


def settings_of(base, **changes):
    return TrainSettings.model_validate({**SETTINGS, "base_model": str(base), **changes})


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "trained"
    return train_adapter(settings_of(base), LEARN, HELD, folder=folder, device="cpu")


def learned(folder):
    return read_learned_rows(folder, read_recipe(folder))


def test_the_folder_is_whole_and_says_which_rows_were_learned_from(trained):
    assert yaml.safe_load((trained.folder / "scorer.yaml").read_text())["adapter"] == "."
    assert not (trained.folder / "checkpoints").exists()
    np.testing.assert_array_equal(learned(trained.folder).find(DATA.battles)[0], np.arange(80) < 60)
    assert trained.held_logits.shape == (20, 3)
    assert trained.figures["all"]["rows"] == 20


def test_it_is_measured_again_to_the_same_figures_and_only_as_the_same_run(trained, base, tmp_path):
    again = measure_again(plan_job(settings_of(base), LEARN, HELD, trained.folder, "cpu"))
    np.testing.assert_array_equal(again.held_logits, trained.held_logits)
    assert again.figures == trained.figures
    with pytest.raises(ConfigError, match=r"is of another run: settings\.seed is 3, was 0"):
        measure_again(plan_job(settings_of(base, seed=3), LEARN, HELD, trained.folder, "cpu"))
    bare = shutil.copytree(trained.folder, tmp_path / "bare", ignore=shutil.ignore_patterns("recipe.json"))
    with pytest.raises(ConfigError, match=r"bare holds scorer\.yaml but no recipe\.json"):
        measure_again(plan_job(settings_of(base), LEARN, HELD, bare, "cpu"))


def test_a_second_stage_has_learned_from_the_rows_of_both_or_from_what_nobody_knows(trained, base, tmp_path):
    first = shutil.copytree(trained.folder, tmp_path / "first")
    settings = settings_of(base, init_adapter=str(first))
    train_adapter(settings, DATA.take(np.arange(58, 70)), NOBODY, folder=tmp_path / "two", device="cpu")
    np.testing.assert_array_equal(learned(tmp_path / "two").find(DATA.battles)[0], np.arange(80) < 70)
    recipe = read_recipe(first)
    write_recipe(first, recipe.model_copy(update={"training": {"base_digest": recipe.training["base_digest"]}}), FILES)
    train_adapter(settings, LEARN, NOBODY, folder=tmp_path / "three", device="cpu")
    assert learned(tmp_path / "three") is None
    assert not (tmp_path / "three" / LEARNED_FILE).exists()
