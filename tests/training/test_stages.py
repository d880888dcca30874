"""Runs that stand on earlier ones: a student learns what a teacher says, a second stage goes on from a first."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from lmsys_ensemble.data.battles import parse_battles, parse_labels
from lmsys_ensemble.errors import ConfigError, InputError, ModelError
from lmsys_ensemble.files import read_object, sha256_of
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE
from lmsys_ensemble.modeling.recipe import read_recipe
from lmsys_ensemble.probabilities import softmax, swap_classes
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.scorers.llama import LlamaScorer
from lmsys_ensemble.training import adapter as adapter_module
from lmsys_ensemble.training import train
from tests.tiny import save_base
from tests.training.fitting import largest_difference
from tests.training.synthetic import make_preferences

SETTINGS = {
    "version": 1,
    "name": "student",
    "scorer": "llama",
    "data": {"files": ["train.csv"], "holdout": {"default": 0.2}},
    "max_tokens": 120,
    "head": {"pooling": "response_spans", "layers": 2},
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
    "optimizer": {"head_l2": 0.01, "epochs": 0, "learning_rate": 5.0e-3, "head_learning_rate": 1.0e-2},
    "autocast": "float32",
}
LEARNS = {**SETTINGS["optimizer"], "epochs": 6, "rows_per_step": 16}
TABLE = make_preferences(80)
TEACHER = "teacher.csv"

SCORE = """
import sys
import numpy as np
import tests.tiny
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.scorers.llama import LlamaScorer

base, adapter, table, output = sys.argv[1:]
with LlamaScorer(base, adapter=adapter, device="cpu") as scorer:
    np.save(output, scorer.score(parse_battles(table)))
"""


def write(folder, base, name="train.yaml", **changes):
    """Write the data and a recipe, and return the recipe's path."""
    TABLE.to_csv(folder / "train.csv", index=False)
    (folder / name).write_text(yaml.safe_dump({**SETTINGS, "base_model": str(base), **changes}))
    return folder / name


def taught(folder):
    """Write a teacher that is no friend of the labels: where they say A it says B, softly; return what it says."""
    said = 0.8 * swap_classes(parse_labels(TABLE), THREE_WAY) + 0.2 / 3
    TABLE[["id"]].assign(**dict(zip(THREE_WAY.columns, said.T, strict=True))).to_csv(folder / TEACHER, index=False)
    return said


def divergence(said, base, adapter):
    with LlamaScorer(str(base), adapter=str(adapter), device="cpu") as scorer:
        probabilities = softmax(scorer.score(parse_battles(TABLE)))
    return float((said * np.log(said / probabilities)).sum(axis=1).mean())


@pytest.fixture(scope="module")
def distilled(checkpoints, tmp_path_factory):
    """Train a student, once not at all and once on what a teacher says; returns the folder."""
    folder = tmp_path_factory.mktemp("distilled")
    base = checkpoints.base("llama")
    taught(folder)
    asked = {"teachers": [{"file": TEACHER}], "terms": {"kl": 1}, "temperature": 2.0}
    train(write(folder, base, "before.yaml"), output=folder / "before", device="cpu")
    path = write(folder, base, distillation=asked, optimizer=LEARNS)
    train(path, output=folder / "student", device="cpu")
    return folder


def test_a_student_learns_what_its_teacher_says_and_not_what_the_labels_do(distilled, checkpoints):
    base, said = checkpoints.base("llama"), taught(distilled)
    before, after = (divergence(said, base, distilled / name) for name in ("before", "student"))
    assert after < 0.5 * before
    losses = read_recipe(distilled / "student").training["losses"]
    assert losses[-1] < 0.5 * losses[0]
    log_loss = read_recipe(distilled / "student").validation["all"]["log_loss"]
    assert log_loss > read_recipe(distilled / "before").validation["all"]["log_loss"]


def test_the_student_scores_in_a_new_process_as_it_was_measured(distilled, checkpoints):
    base, adapter = checkpoints.base("llama"), distilled / "student"
    root = Path(__file__).parents[2]
    arguments = [str(base), str(adapter), str(distilled / "train.csv"), str(distilled / "logits.npy")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", SCORE, *arguments], check=True, cwd=root, env=environment, timeout=300)
    said, logits = taught(distilled), np.load(distilled / "logits.npy")
    found = float((said * np.log(said / softmax(logits))).sum(axis=1).mean())
    assert found == pytest.approx(divergence(said, base, adapter), abs=1e-5)


def test_what_is_recorded_names_the_teacher_its_hash_and_no_path(distilled):
    training = read_recipe(distilled / "student").training
    assert training["settings"]["distillation"]["teachers"] == [
        {"file": TEACHER, "values": "probabilities", "weight": 1.0}
    ]
    assert training["inputs"] == {"teachers_sha256": [sha256_of(distilled / TEACHER)]}
    assert "inputs" not in read_recipe(distilled / "before").training
    card = (distilled / "student" / "README.md").read_text()
    assert f"- distilled from `{TEACHER}`: 1 kl, at temperature 2" in card
    for path in (distilled / "student").iterdir():
        assert str(distilled).encode() not in path.read_bytes()


def test_a_run_is_not_resumed_with_another_teacher(distilled, tmp_path):
    copy = shutil.copytree(distilled, tmp_path / "copy")
    train(copy / "train.yaml", output=copy / "student", device="cpu", resume=True)
    with (copy / TEACHER).open("a") as file:
        file.write("1000,1,0,0\n")
    with pytest.raises(ConfigError, match=r"is of another run: inputs\.teachers_sha256"):
        train(copy / "train.yaml", output=copy / "student", device="cpu", resume=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"distillation": {"teachers": [{"file": "no.csv"}]}}, ConfigError, r"not there: .*no\.csv; .*--data FOLDER"),
        ({"distillation": {"teachers": [{"file": "few.csv"}]}}, InputError, r"few\.csv has no probabilities for"),
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
def test_what_a_run_stands_on_is_checked_before_weights_are_loaded(
    distilled, checkpoints, tmp_path, monkeypatch, changes, error, message
):
    """``other`` has the shape of the base and other weights; of ``unknown`` only the base's name is known."""
    TABLE.head(20)[["id"]].assign(winner_model_a=1.0, winner_model_b=0.0, winner_tie=0.0).to_csv(
        tmp_path / "few.csv", index=False
    )
    (tmp_path / "empty").mkdir()
    shutil.copytree(distilled / "before", tmp_path / "first")
    shutil.copytree(distilled / "before", tmp_path / "bare", ignore=shutil.ignore_patterns("recipe.json"))
    unknown = shutil.copytree(distilled / "before", tmp_path / "unknown")
    recipe = read_object(unknown / "recipe.json")
    del recipe["training"]["base_digest"]
    (unknown / "recipe.json").write_text(json.dumps(recipe))
    if changes.get("base_model"):
        save_base("llama", tmp_path / "other", initializer_range=0.1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adapter_module, "build_model", lambda *_: pytest.fail("loaded the weights first"))
    path = write(tmp_path, checkpoints.base("llama"), **changes)
    with pytest.raises(error, match=message):
        train(path, output=tmp_path / "second", device="cpu")


def test_a_second_stage_starts_where_the_first_ended(distilled, checkpoints, tmp_path):
    """Nothing trained: the same bytes, though the recipe asks for a fitted head. One step: all has moved a little."""
    shutil.copytree(distilled / "student", tmp_path / "first")
    base = checkpoints.base("llama")
    path = write(tmp_path, base, init_adapter="first", optimizer=SETTINGS["optimizer"])
    train(path, output=tmp_path / "same", device="cpu")
    first, same = (tmp_path / name / WEIGHTS_FILE for name in ("first", "same"))
    assert first.read_bytes() == same.read_bytes()
    assert read_object(tmp_path / "same" / "golden.json") == read_object(tmp_path / "first" / "golden.json")
    training = read_recipe(tmp_path / "same").training
    assert training["settings"]["init_adapter"] == "first"
    assert "- goes on from the adapter `first`" in (tmp_path / "same" / "README.md").read_text()
    assert training["inputs"] == {"init_adapter_sha256": {WEIGHTS_FILE: sha256_of(first)}}

    step = {**SETTINGS["optimizer"], "epochs": 1, "rows_per_step": 1000, "warmup": 0.0}
    train(write(tmp_path, base, init_adapter="first", optimizer=step), output=tmp_path / "moved", device="cpu")
    before, after = load_file(first), load_file(tmp_path / "moved" / WEIGHTS_FILE)
    assert read_recipe(tmp_path / "moved").training["steps"] == 1
    assert all((before[name] != after[name]).any() for name in before)
    assert largest_difference(before, after) < 2 * step["head_learning_rate"]
