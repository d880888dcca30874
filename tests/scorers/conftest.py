"""What tests of scorers share: an adapter that has a recipe."""

import shutil

import pytest

from lmsys_ensemble.modeling.recipe import describe_base, write_recipe
from tests.tiny import make_recipe


@pytest.fixture
def trained(checkpoints, tmp_path):
    """Return an adapter's folder with a recipe."""
    folder = shutil.copytree(checkpoints.adapter("llama"), tmp_path / "trained")
    recipe = make_recipe(
        base_model=describe_base(checkpoints.base("llama"), "tiny-llama").model_dump(),
        template={"name": "kaggle-gemma"},
        max_tokens=70,
        truncation="tail",
        special_tokens={"bos": True, "eos": False, "pad_token_id": 2},
    )
    write_recipe(folder, recipe, ("adapter_model.safetensors",))
    return folder
