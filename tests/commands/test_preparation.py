"""The commands that come before scoring: train, import-checkpoint, models, validate."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lmsys_ensemble.bases import bundled, catalogue
from lmsys_ensemble.training import trainer
from tests.commandline import run, write_config


def test_validate_says_what_is_in_the_data_without_loading(folder, capsys):
    code, out, _ = run(capsys, "validate", "--config", "ensemble.yaml", "--input", "labelled.csv")
    assert code == 0
    assert "12 rows" in out
    assert "labels valid" in out


def test_import_checkpoint_makes_a_folder_that_a_scorer_loads(folder, capsys, checkpoints):
    base, adapter = checkpoints.base("llama"), checkpoints.adapter("llama")
    code, out, err = run(
        capsys, "import-checkpoint", adapter, "--base", base, "--template", "kaggle-llama", "--max-tokens", 64,
        "--output", "imported",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "golden.json" in out
    write_config([{"type": "llama", "model": str(base), "adapter": "imported"}], {"method": "equal"})
    code, _, _ = run(capsys, "predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv")
    assert code == 0
    code, _, err = run(
        capsys, "import-checkpoint", adapter, "--base", base, "--template", "kaggle-lama", "--max-tokens", 64,
        "--output", "again",
    )  # fmt: skip
    assert code == 2
    assert "did you mean 'kaggle-llama'" in " ".join(err.split())


def test_an_assumed_template_is_said(folder, checkpoints):
    write_config([{"type": "llama", "model": str(checkpoints.classifier("llama"))}], {"method": "equal"})
    command = [sys.executable, "-m", "lmsys_ensemble", "validate", "--config", "ensemble.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "no recipe.json" in done.stderr
    assert "template kaggle-llama" in done.stderr


def test_validate_lists_faults_of_several_scorers_the_blender_and_the_data(folder, capsys):
    write_config([{"type": "fkae"}, {"type": "fake", "sed": 1}], {"methd": "equal"})
    code, out, err = run(capsys, "validate", "--config", "ensemble.yaml", "--input", "none.csv")
    assert (code, out) == (2, "")
    for words in ("4 things are wrong", "'fkae'", "'sed'", "'methd'", "none.csv"):
        assert words in err


def test_validate_refuses_groups_that_evaluate_would_refuse(folder, capsys):
    labelled = pd.read_csv("labelled.csv")
    labelled.assign(group=["a"] * 11 + [" "]).to_csv("labelled.csv", index=False)
    code, _, err = run(capsys, "validate", "--config", "ensemble.yaml", "--input", "labelled.csv")
    assert code == 2
    assert "column 'group' says which rows belong together: 1 of 12 rows have no group there" in " ".join(err.split())


def test_validate_lists_all_that_is_wrong(folder, capsys, checkpoints):
    base, adapter = checkpoints.base("llama"), checkpoints.adapter("llama")
    write_config(
        [
            {"type": "llama", "model": str(base), "adapter": str(adapter), "quantization": "nf5", "name": "one"},
            {"type": "llama", "model": "./absent", "adapter": "nowhere", "name": "two"},
            {"type": "gemma", "model": str(base), "name": "three", "dtype": "half"},
        ],
        {"weights": [0.6, 0.4]},
    )
    pd.read_csv("test.csv").drop(columns="response_a").to_csv("wrong.csv", index=False)
    code, out, err = run(capsys, "validate", "--config", "ensemble.yaml", "--input", "wrong.csv")
    said = " ".join(err.split())
    assert (code, out) == (2, "")
    for words in (
        "8 things are wrong",
        "columns are missing: 'response_a'",
        "2 weights for 3 scorers",
        "scorer 'one': unknown quantization 'nf5'",
        "scorer 'two': no folder here: './absent'",
        "scorer 'two': there is no adapter folder nowhere",
        "scorer 'three': unknown dtype 'half'",
        "has no trained classification head",
        "GemmaScorer takes gemma, gemma2, gemma3, gemma3_text",
    ):
        assert words in said, words


def test_validate_says_what_is_missing_here_but_not_wrong(folder, capsys, checkpoints, monkeypatch, tmp_path):
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(tmp_path / "cache"))
    base, adapter = checkpoints.base("llama"), checkpoints.adapter("llama")
    write_config(
        [
            {"type": "llama", "model": str(base), "adapter": str(adapter), "device": "cuda:7", "name": "one"},
            {"type": "llama", "model": "bundled:smollm2-135m-instruct", "adapter": str(adapter), "name": "two"},
            {"type": "reward", "model": "bundled:smollm2-135m-instruct", "adapter": str(adapter), "name": "three"},
        ],
        {"weights": [0.4, 0.3, 0.3]},
    )
    code, out, err = run(capsys, "validate", "--config", "ensemble.yaml")
    assert code == 0, err
    assert (
        "three: RewardScorer on auto, davidson, at most 2048 tokens\n    bundled:smollm2-135m-instruct has not" in out
    )
    assert "cuda:7 is not on this machine" in out
    assert "bundled:smollm2-135m-instruct has not been fetched yet" in out
    code, _, err = run(capsys, "predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv")
    assert code == 2


@pytest.mark.parametrize(
    "change",
    [
        ("--base", "./absent"),
        ("--base", "test.csv"),
        ("--base", "."),
        ("--template", "absent"),
        ("--truncation", "absent"),
        ("--max-tokens", 2),
        ("--classes", "a"),
        ("--device", "cuda:99"),
        ("--device", "gpu"),
        ("--output", "test.csv"),
        ("--output", "."),
        ("SOURCE", "absent.pth"),
    ],
)
def test_wrong_arguments_of_import_checkpoint_are_exit_code_2(folder, capsys, checkpoints, change):
    values = {
        "SOURCE": checkpoints.adapter("llama"), "--base": checkpoints.base("llama"), "--template": "turns",
        "--max-tokens": 64, "--output": "out", **dict([change]),
    }  # fmt: skip
    source = values.pop("SOURCE")
    code, out, err = run(capsys, "import-checkpoint", source, *(part for pair in values.items() for part in pair))
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({"base_model": "./absent"}, ()),
        ({"template": "absent"}, ()),
        ({"lora": {"r": 0}}, ()),
        ({"data": {"files": ["absent.csv"]}}, ()),
        ({"absent": 1}, ()),
        ({}, ("--device", "cuda:99")),
        ({}, ("--output", "test.csv")),
        ({}, ("--output", ".")),
        (None, ()),
    ],
)
def test_wrong_recipes_and_arguments_of_train_are_exit_code_2(folder, capsys, checkpoints, changes, arguments):
    if changes is not None:
        recipe = {"name": "mine", "scorer": "llama", "base_model": str(checkpoints.base("llama")), "max_tokens": 64}
        with open("train.yaml", "w") as file:
            yaml.safe_dump({**recipe, "data": {"files": ["labelled.csv"]}, **changes}, file)
    values = {"--output": "out", **dict(zip(arguments[::2], arguments[1::2], strict=True))}
    code, out, err = run(capsys, "train", "train.yaml", *(part for pair in values.items() for part in pair))
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert not (folder / "out").exists()


def write_recipe(base, **lora):
    """Write a recipe that trains on labelled.csv in six steps, with a checkpoint after each."""
    optimizer = {"epochs": 2, "rows_per_step": 4, "learning_rate": 5e-3, "head_l2": None}
    recipe = {
        "name": "mine", "scorer": "llama", "base_model": str(base), "max_tokens": 64, "checkpoint_steps": 1,
        "data": {"files": ["labelled.csv"], "holdout": {"default": 0.0}}, "optimizer": optimizer,
        "lora": {"r": 2, "alpha": 4, "dropout": 0.2, **lora}, "swap_augmentation": False, "autocast": "float32",
    }  # fmt: skip
    Path("train.yaml").write_text(yaml.safe_dump(recipe))


def weights_in(folder):
    return Path(folder, "adapter_model.safetensors").read_bytes()


def test_train_goes_on_where_it_was_interrupted_with_resume_and_not_without(folder, capsys, checkpoints, monkeypatch):
    write_recipe(checkpoints.base("llama"))
    words = ("train", "train.yaml", "--device", "cpu", "--cache", "states", "--output")
    assert run(capsys, *words, "whole")[0] == 0
    mark = trainer.mark_complete

    def mark_and_stop(checkpoint):
        mark(checkpoint)
        if checkpoint.name == "checkpoint-3":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "mark_complete", mark_and_stop)
        code, out, err = run(capsys, *words, "stopped")
    assert (code, out) == (130, "")
    assert "interrupted" in err
    code, _, err = run(capsys, *words, "stopped")
    assert code == 2
    assert "stopped is not empty" in " ".join(err.split())
    assert "--resume to go on" in " ".join(err.split())
    state = Path("stopped", "checkpoints", "checkpoint-3", "trainer_state.json")
    history = json.loads(state.read_text())
    next(entry for entry in history["log_history"] if "loss" in entry)["loss"] = 123.0  # known by nobody else
    state.write_text(json.dumps(history))
    code, _, err = run(capsys, *words, "stopped", "--resume")
    assert code == 0, err
    assert weights_in("stopped") == weights_in("whole")
    losses = [pd.read_csv(Path(name, "curves.csv"))["loss"] for name in ("stopped", "whole")]
    assert losses[0][0] == 123
    assert losses[0][1:].tolist() == losses[1][1:].tolist()
    assert len(losses[0]) == 6


def test_train_keeps_hidden_states_where_it_is_told_and_takes_them_from_there(folder, capsys, checkpoints, monkeypatch):
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(folder / "cache"))
    write_recipe(checkpoints.base("llama"), first_layer=2)
    words = ("train", "train.yaml", "--device", "cpu", "--cache", "states", "--output")
    code, _, err = run(capsys, *words, "one")
    assert code == 0, err
    (kept,) = Path("states").glob("*/part-*.bin")
    before = (kept.stat().st_mtime_ns, kept.read_bytes())
    assert any(before[1])
    code, _, err = run(capsys, *words, "two")
    assert "hidden states below layer 2: 0.0 MB to compute" in err
    assert list(Path("states").glob("*/part-*.bin")) == [kept]
    assert (kept.stat().st_mtime_ns, kept.read_bytes()) == before
    assert weights_in("two") == weights_in("one")
    kept.write_bytes(bytes(len(before[1])))
    assert run(capsys, *words, "three")[0] == 0
    assert weights_in("three") != weights_in("one"), "what is kept is what is learned from"
    assert not (folder / "cache" / "hidden-states").exists()


def test_models_are_listed_with_the_adapters_and_ensembles_that_come_along(folder, capsys, monkeypatch):
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(folder / "cache"))
    code, out, err = run(capsys, "models", "list", "--json")
    assert (code, err) == (0, "")
    values = json.loads(out)
    assert {model["state"] for model in values["bundled"]} == {"not fetched"}
    assert [model["name"] for model in values["bundled"]] == list(catalogue.BUNDLED_MODELS)
    assert "default" in values["ensembles"]
    code, out, _ = run(capsys, "models", "list", "smollm2-135m-instruct")
    first, *others = out.splitlines()
    assert first == (
        "bundled:smollm2-135m-instruct (llama, Apache-2.0): not fetched, 0.09 GB to fetch, 0.54 GB on disk"
    )
    assert others == [
        f"trained adapters: {', '.join(values['adapters'])}", f"ensembles: {', '.join(values['ensembles'])}",
    ]  # fmt: skip
    code, out, _ = run(capsys, "models", "list", "qwen2.5-coder-1.5b")
    assert out.splitlines()[0].endswith(": not fetched, 1.09 GB to fetch, 3.57 GB on disk, optional")
    assert not (folder / "cache").exists(), "nothing is fetched"


def test_optional_models_are_fetched_by_name_only(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(bundled, "ensure_bundled", lambda name, _: asked.append(name))
    run(capsys, "models", "pull")
    assert asked == ["smollm2-135m-instruct", "gemma-3-270m"]
    run(capsys, "models", "pull", "bundled:qwen2.5-coder-0.5b")
    assert asked[2:] == ["qwen2.5-coder-0.5b-instruct"]
