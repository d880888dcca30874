"""A second stage goes on from a first: nothing is lost on the way, and what does not fit is refused."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from lmsys_ensemble.errors import ConfigError, ModelError
from lmsys_ensemble.files import read_object, sha256_of
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE
from lmsys_ensemble.modeling.recipe import read_recipe
from lmsys_ensemble.training import adapter as adapter_module
from lmsys_ensemble.training import train
from tests.tiny import save_base
from tests.training.fitting import largest_difference
from tests.training.staged import LEARNS, SETTINGS, write


@pytest.fixture(scope="module")
def first(checkpoints, tmp_path_factory):
    """Train a first stage and return its folder."""
    folder = tmp_path_factory.mktemp("first")
    path = write(folder, checkpoints.base("llama"), optimizer={**LEARNS, "epochs": 1})
    train(path, output=folder / "trained", device="cpu")
    return folder / "trained"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"init_adapter": "nowhere"}, ConfigError, "init_adapter: there is no folder .*nowhere"),
        ({"init_adapter": "empty"}, ModelError, r"empty holds no adapter_config\.json"),
        ({"init_adapter": "first", "lora": {"r": 8}}, ConfigError, r"lora\.r is 8, was 4; lora\.alpha is 32, was 8"),
        (
            {"init_adapter": "first", "lora": {**SETTINGS["lora"], "target_modules": ["q_proj"]}}, ConfigError,
            r"lora\.target_modules is \['q_proj'\], was \['q_proj', 'v_proj'\]",
        ),
        ({"init_adapter": "first", "lora": {**SETTINGS["lora"], "rslora": True}}, ConfigError, r"lora\.rslora is True"),
        (
            {"init_adapter": "first", "lora": {**SETTINGS["lora"], "first_layer": 1}}, ConfigError,
            r"trained layers are \[1\], were \[0, 1\]",
        ),
        (
            {"init_adapter": "first", "head": {"pooling": "last_token", "layers": 2}}, ConfigError,
            r"head\.pooling is last_token, was response_spans\. A second stage has base, LoRA and head of the first",
        ),
        ({"init_adapter": "first", "base_model": "other"}, ConfigError, "base_model is other, whose files are not"),
        ({"init_adapter": "unknown", "base_model": "other"}, ConfigError, "base_model is other, was llama-base"),
        ({"init_adapter": "bare"}, ConfigError, r"bare has no recipe\.json"),
    ],
)  # fmt: skip
def test_a_first_stage_that_does_not_fit_is_refused_before_weights_are_loaded(
    first, checkpoints, tmp_path, monkeypatch, changes, error, message
):
    """``other`` has the shape of the base and other weights; of ``unknown`` only the base's name is known."""
    (tmp_path / "empty").mkdir()
    shutil.copytree(first, tmp_path / "first")
    shutil.copytree(first, tmp_path / "bare", ignore=shutil.ignore_patterns("recipe.json"))
    unknown = shutil.copytree(first, tmp_path / "unknown")
    recipe = read_object(unknown / "recipe.json")
    for name in ("base_digest", "base_sha256"):
        del recipe["training"][name]
    (unknown / "recipe.json").write_text(json.dumps(recipe))
    if changes.get("base_model"):
        save_base("llama", tmp_path / "other", initializer_range=0.1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adapter_module, "build_model", lambda *_: pytest.fail("loaded the weights first"))
    path = write(tmp_path, checkpoints.base("llama"), **changes)
    with pytest.raises(error, match=message):
        train(path, output=tmp_path / "second", device="cpu")


def test_a_second_stage_starts_where_the_first_ended(first, checkpoints, tmp_path):
    """Nothing trained: the same bytes, though the recipe asks for a fitted head. One step: all has moved a little."""
    shutil.copytree(first, tmp_path / "first")
    base = checkpoints.base("llama")
    path = write(tmp_path, base, init_adapter="first", optimizer=SETTINGS["optimizer"])
    train(path, output=tmp_path / "same", device="cpu")
    before, after = (tmp_path / name / WEIGHTS_FILE for name in ("first", "same"))
    assert before.read_bytes() == after.read_bytes()
    assert read_object(tmp_path / "same" / "golden.json") == read_object(tmp_path / "first" / "golden.json")
    training = read_recipe(tmp_path / "same").training
    assert training["settings"]["init_adapter"] == "first"
    assert "- goes on from the adapter `first`" in (tmp_path / "same" / "README.md").read_text()
    assert training["inputs"] == {"init_adapter_sha256": {WEIGHTS_FILE: sha256_of(before)}}

    step = {**SETTINGS["optimizer"], "epochs": 1, "rows_per_step": 1000, "warmup": 0.0}
    train(write(tmp_path, base, init_adapter="first", optimizer=step), output=tmp_path / "moved", device="cpu")
    before, after = load_file(before), load_file(tmp_path / "moved" / WEIGHTS_FILE)
    assert read_recipe(tmp_path / "moved").training["steps"] == 1
    assert all((before[name] != after[name]).any() for name in before)
    assert largest_difference(before, after) < 2 * step["head_learning_rate"]
