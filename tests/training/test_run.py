"""One training run from a recipe to a folder that scores, on a tiny base."""

import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from lmsys_ensemble.config import read_config
from lmsys_ensemble.data.corpus import data_hash, read_labelled
from lmsys_ensemble.errors import ConfigError, GoldenError, InputError
from lmsys_ensemble.modeling.golden import check_golden, golden_inputs, read_golden
from lmsys_ensemble.modeling.recipe import read_recipe
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.scorers.llama import LlamaScorer
from lmsys_ensemble.training import adapter as adapter_module
from lmsys_ensemble.training import run as run_module
from lmsys_ensemble.training.dataset import split
from lmsys_ensemble.training.run import train
from lmsys_ensemble.training.settings import DataSettings, TrainSettings
from tests.tiny import EOS, encode, plain_logits, plain_model, save_base
from tests.training.synthetic import make_preferences

SETTINGS = {
    "version": 1,
    "name": "tiny-trained",
    "scorer": "llama",
    "data": {"files": ["one.parquet", "two.csv"], "holdout": {"one": 0.3, "default": 0.2}},
    "max_tokens": 120,
    "head": {"pooling": "response_spans", "layers": 3},
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "first_layer": 1},
    "optimizer": {"head_l2": 0.01, "epochs": 2, "learning_rate": 2.0e-3},
    "autocast": "float32",
}


def write_inputs(folder, base, **changes):
    make_preferences(160, 0, "one").to_parquet(folder / "one.parquet")
    two = make_preferences(60, 1, "two")
    two.assign(id=two["id"] + 10_000).to_csv(folder / "two.csv", index=False)
    (folder / "train.yaml").write_text(yaml.safe_dump({**SETTINGS, "base_model": str(base), **changes}))
    return folder / "train.yaml"


@pytest.fixture(scope="module")
def run(checkpoints, tmp_path_factory):
    """Return the folder of a run, its figures, and what it said."""
    folder, said = tmp_path_factory.mktemp("run"), []
    recipe = write_inputs(folder, checkpoints.base("llama"))
    figures = train(recipe, output=folder / "trained", device="cpu", say=said.append)
    return folder, figures, said


@pytest.fixture
def scorer(run, checkpoints):
    with LlamaScorer(str(checkpoints.base("llama")), adapter=str(run[0] / "trained"), device="cpu") as loaded:
        yield loaded


def divide(folder):
    data = read_labelled([folder / "one.parquet", folder / "two.csv"], THREE_WAY)
    return split(data, DataSettings.model_validate(SETTINGS["data"]), 0)


def test_the_figures_of_the_recipe_are_those_that_scoring_gives_again(run, scorer):
    folder, figures, said = run
    learn, held = divide(folder)
    assert said[0] == f"{len(learn)} rows to learn from, {len(held)} held out"
    recipe = read_recipe(folder / "trained")
    assert recipe.validation == figures
    assert list(figures) == ["one", "two", "all"]
    assert sum(recipe.training["rows"].values()) == len(learn)
    assert recipe.training["data_sha256"] == data_hash(learn)
    assert len(recipe.training["losses"]) == 2
    probabilities = softmax(scorer.score(held.battles))
    for source, found in figures.items():
        rows = (held.sources == source) | (source == "all")
        losses = -np.log((held.labels * probabilities).sum(axis=1)[rows])
        assert found["rows"] == rows.sum()
        assert found["log_loss"] == pytest.approx(losses.mean(), abs=1e-4)
        right = probabilities[rows].argmax(axis=1) == held.labels[rows].argmax(axis=1)
        assert found["accuracy"] == pytest.approx(right.mean(), abs=1e-4)
    assert figures["all"]["log_loss"] < 0.7 * figures["all"]["class_prior"]


def test_golden_rows_reproduce_and_find_another_head_out(run, scorer, checkpoints, tmp_path):
    trained = run[0] / "trained"
    golden = read_golden(trained)
    assert len(golden.rows) >= 5
    check_golden(golden, scorer._forward(*golden_inputs(golden)), "float32", trained)
    copy = shutil.copytree(trained, tmp_path / "copy")
    values = json.loads((copy / "golden.json").read_text())
    values["rows"][0]["logits"] = values["rows"][0]["logits"][::-1]
    (copy / "golden.json").write_text(json.dumps(values))
    with pytest.raises(GoldenError):
        LlamaScorer(str(checkpoints.base("llama")), adapter=str(copy), device="cpu").load()


def test_only_layers_from_the_first_trained_one_to_the_last_that_runs_have_weights(run):
    weights = load_file(run[0] / "trained" / "adapter_model.safetensors")
    layers = {int(name.split("layers.")[1].split(".")[0]) for name in weights if "layers." in name}
    assert layers == {1, 2}
    assert all(tensor.any() for name, tensor in weights.items() if "lora_B" in name)
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert weights["base_model.model.score.weight"].shape == (3, 2 * 64 + 3)


def test_what_is_passed_on_names_no_path_of_the_machine(run, checkpoints):
    folder = run[0]
    written = sorted(path.name for path in (folder / "trained").iterdir())
    assert written == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "curves.csv",
        "curves.svg",
        "golden.json",
        "learned_rows.safetensors",
        "recipe.json",
        "scorer.yaml",
    ]
    for name in written:
        content = (folder / "trained" / name).read_bytes()
        assert str(folder).encode() not in content, name
        assert str(checkpoints.folder).encode() not in content, name
    config = json.loads((folder / "trained" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "llama-base"


def test_the_scorer_file_makes_the_scorer(run, scorer, tmp_path):
    folder, _, _ = run
    (folder / "ensemble.yaml").write_text(yaml.safe_dump({"version": 1, "scorers": ["trained"]}))
    (made,), _, _ = read_config(folder / "ensemble.yaml")
    assert (type(made), made.name) == (LlamaScorer, "tiny-trained")
    battles = divide(folder)[1].battles[:5]
    with made:
        np.testing.assert_array_equal(made.score(battles), scorer.score(battles))


def test_the_card_states_every_held_out_figure(run):
    folder, figures, _ = run
    card = (folder / "trained" / "README.md").read_text()
    for source, found in figures.items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {source} |"))
        for key in ("log_loss", "class_prior", "length_only"):
            assert f"{found[key]:.4f}" in row
        assert f"- {source}: beats the class prior" in card


def test_a_checkpoint_whose_padding_is_its_end_token_is_scored_as_it_was_trained(tmp_path):
    """The pooled position of training is written down, and is that of transformers and PEFT."""
    base = save_base("llama", tmp_path / "base", pad_token_id=EOS)
    head = {"pooling": "last_token"}
    path = write_inputs(tmp_path, base, head=head, optimizer={"head_l2": 0.01, "epochs": 0})
    train(path, output=tmp_path / "trained", device="cpu")
    assert read_recipe(tmp_path / "trained").special_tokens.pad_token_id == EOS
    learn = divide(tmp_path)[0]
    with LlamaScorer(str(base), adapter=str(tmp_path / "trained"), device="cpu") as scorer:
        logits = scorer.score(learn.battles)
    plain = plain_model(base, adapter=tmp_path / "trained", pad_token_id=EOS)
    ids = encode(learn.battles, max_tokens=120).ids
    np.testing.assert_allclose(logits, plain_logits(plain, ids, rows_at_once=4), atol=1e-5)
    prior = learn.labels.mean(axis=0)
    loss = -np.log((learn.labels * softmax(logits)).sum(axis=1)).mean()
    assert loss < -(learn.labels @ np.log(prior)).mean() - 0.1, "the head was fitted to what it is given in scoring"


@pytest.mark.parametrize("first_layer", [3, 9])
def test_a_first_layer_beyond_those_that_run_is_refused(checkpoints, tmp_path, first_layer):
    path = write_inputs(tmp_path, checkpoints.base("llama"), lora={"first_layer": first_layer})
    with pytest.raises(ConfigError, match=rf"first_layer is {first_layer}, but only 3 layers run"):
        train(path, output=tmp_path / "trained", device="cpu")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_trained_adapter_is_not_replaced_unasked(run, tmp_path, monkeypatch):
    folder = shutil.copytree(run[0], tmp_path / "copy")
    before = contents(folder / "trained")
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "read_labelled", lambda *_: pytest.fail("read the data first"))
        with pytest.raises(InputError, match="trained is not empty; a trained adapter is not replaced unasked"):
            train(folder / "train.yaml", output=folder / "trained", device="cpu")
    assert contents(folder / "trained") == before
    train(folder / "train.yaml", output=folder / "trained", device="cpu", overwrite=True)
    assert contents(folder / "trained").keys() == before.keys()
    (folder / "empty").mkdir()
    train(folder / "train.yaml", output=folder / "empty", device="cpu")
    assert contents(folder / "empty").keys() == before.keys()


def test_an_output_that_cannot_be_written_is_told_before_the_data_are_read(run, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "read_labelled", lambda *_: pytest.fail("read the data first"))
    (tmp_path / "file").touch()
    for output in ("file", "file/inside"):
        with pytest.raises(InputError, match=r"file is a file, expected a folder"):
            train(run[0] / "train.yaml", output=tmp_path / output, device="cpu")


def test_a_table_and_a_recipe_in_memory_are_enough(checkpoints, tmp_path):
    values = {**SETTINGS, "base_model": str(checkpoints.base("llama")), "data": {"holdout": {"default": 0.3}}}
    table = make_preferences(60).rename(columns={"source": "origin"})
    figures = train(TrainSettings.model_validate(values), table, output=tmp_path / "trained", device="cpu")
    assert list(figures) == ["data", "all"]
    recipe = read_recipe(tmp_path / "trained")
    assert sum(recipe.training["rows"].values()) + figures["all"]["rows"] == 60
    curves = pd.read_csv(tmp_path / "trained" / "curves.csv")
    assert curves["held_log_loss"].iloc[-1] == pytest.approx(figures["all"]["log_loss"], abs=2e-4)
    picture = ElementTree.parse(tmp_path / "trained" / "curves.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert "![training loss and log loss on the rows held out](curves.svg)" in (
        (tmp_path / "trained" / "README.md").read_text()
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": {}}, ConfigError, r"names no data\.files"),
        ({"optimizer": {"name": "paged_adamw_8bit"}}, ConfigError, "on the CPU use adamw_8bit"),
        ({"evaluation": {"patience": 2}, "data": {"holdout": {"default": 0.0}}}, ConfigError, r"set data\.holdout"),
        ({"data": {"rows": {"one": 0, "two": 0}}}, InputError, "no rows to learn from are left"),
        ({"data": {"weights": {"one": 0, "two": 0}}}, InputError, r"all 142 rows to learn from have weight 0"),
        ({"data": {"weights": {"oen": 2}}}, ConfigError, r"the source 'oen', but no row is of it \(did you mean 'one'"),
        ({"lora": {"target_modules": ["W_pack"]}}, ConfigError, "no linear layer called 'W_pack'"),
        ({"lora": {"layers_to_transform": [1, 7]}}, ConfigError, "names 7, but only 3 layers run"),
        ({"template": "chatt"}, ConfigError, "chatt"),
        ({"head": {"pooling": "last_token", "layers": 40}}, ConfigError, "has 4 layers, 40 are asked for"),
    ],
)
def test_bad_recipes_fail_before_weights_are_loaded(checkpoints, tmp_path, monkeypatch, changes, error, message):
    monkeypatch.setattr(adapter_module, "build_model", lambda *_: pytest.fail("loaded the weights first"))
    data = {**SETTINGS["data"], **changes["data"]} if changes.get("data") else changes.get("data", SETTINGS["data"])
    path = write_inputs(tmp_path, checkpoints.base("llama"), **{**changes, "data": data})
    with pytest.raises(error, match=message):
        train(path, output=tmp_path / "trained", device="cpu")


def test_a_table_without_labels_is_named(checkpoints, tmp_path):
    settings = TrainSettings.model_validate({**SETTINGS, "base_model": str(checkpoints.base("llama"))})
    table = make_preferences(10)
    with pytest.raises(InputError, match="no labels found"):
        train(settings, table.drop(columns="winner"), output=tmp_path / "trained", device="cpu")
    with pytest.raises(InputError, match="response_b"):
        train(settings, table.drop(columns="response_b"), output=tmp_path / "trained", device="cpu")
    soft = table.drop(columns="winner").assign(winner_model_a=0.5, winner_model_b=0.1, winner_tie=0.1)
    with pytest.raises(InputError, match="labels winner_model_a"):
        train(settings, soft, output=tmp_path / "trained", device="cpu")
