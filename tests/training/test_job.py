"""What a training goes by is checked against the base model, and names no path of the machine."""

import json

import numpy as np
import pytest

from lmsys_ensemble.data.corpus import as_labelled, data_hash
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training.job import plan_job, plan_recipe
from tests.tiny import PAD
from tests.training.fitting import make_settings
from tests.training.staged import TABLE

DATA = as_labelled(TABLE, THREE_WAY)
HELD, NOBODY = DATA.take(np.arange(5)), DATA.take(np.arange(0))


def plan(checkpoints, folder, held=NOBODY, **changes):
    settings = make_settings(base_model=str(checkpoints.base("llama")), **changes)
    return plan_job(settings, DATA, held, folder, "cpu")


def test_a_base_that_is_a_folder_is_found_from_the_adapter_and_named_without_its_path(checkpoints, tmp_path):
    job, base = plan(checkpoints, tmp_path / "trained"), checkpoints.base("llama")
    assert job.settings.base_model == job.recipe.base_model.name == base.name
    assert (tmp_path / "trained" / job.scorer_model).resolve() == base.resolve()
    assert str(base.parent) not in json.dumps([job.provenance(), job.run])


def test_a_run_is_known_by_its_rows_and_its_recipe_states_them(checkpoints, tmp_path):
    job = plan(checkpoints, tmp_path, held=HELD)
    assert job.run["data_sha256"] == job.provenance()["data_sha256"] == data_hash(DATA)
    assert job.run["held_sha256"] == data_hash(HELD)
    assert plan(checkpoints, tmp_path).run["held_sha256"] is None
    assert job.provenance()["rows"] == {"synthetic": len(DATA)}
    assert "inputs" not in job.provenance()


def test_a_token_of_padding_that_is_not_given_is_that_of_the_base(checkpoints):
    settings = make_settings(special_tokens={"pad_token_id": None})
    assert plan_recipe(settings, checkpoints.base("llama")).special_tokens.pad_token_id == PAD


@pytest.mark.parametrize(
    ("lora", "words"),
    [({"first_layer": 4}, "only 4 layers run"), ({"target_modules": ["W_pack"]}, "no linear layer called 'W_pack'")],
)
def test_what_the_base_does_not_have_is_refused(checkpoints, tmp_path, lora, words):
    with pytest.raises(ConfigError, match=words):
        plan(checkpoints, tmp_path, lora=lora)
