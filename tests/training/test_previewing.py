"""What a training will be is told before anything is loaded, and comes true."""

import json

import pytest

from lmsys_ensemble.cli import main
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.training import preview, train
from lmsys_ensemble.training.checkpoints import CHECKPOINTS
from tests.training.staged import LEARNS, SETTINGS, write


@pytest.fixture
def recipe(checkpoints, tmp_path):
    lora = {**SETTINGS["lora"], "first_layer": 1}
    return write(tmp_path, checkpoints.base("llama"), optimizer=LEARNS, lora=lora)


def test_rows_and_steps_are_those_of_the_training(recipe, tmp_path):
    before = set(tmp_path.rglob("*"))
    told = preview(recipe)
    assert set(tmp_path.rglob("*")) == before  # nothing is written
    train(recipe, output=tmp_path / "adapter", cache=tmp_path / "cache")
    done = json.loads((tmp_path / "adapter" / "recipe.json").read_text())["training"]
    assert told["learn"] == done["rows"]
    steps = [int(line.split(",")[0]) for line in (tmp_path / "adapter" / "curves.csv").read_text().splitlines()[1:]]
    assert told["steps"] == max(steps) == 6 * told["steps_per_epoch"]
    assert told["sequences"] == 2 * sum(told["learn"].values())
    assert told["tokens"]["longest"] <= 120
    assert told["hidden_state_bytes"] > 0
    assert told["arithmetic"] == "float32"
    assert sum(told["labels"].values()) == pytest.approx(1, abs=1e-3)


def test_what_is_wrong_with_the_base_is_told(checkpoints, tmp_path):
    with pytest.raises(ConfigError, match="nothing_there"):
        preview(write(tmp_path, checkpoints.base("llama"), lora={"target_modules": ["nothing_there"]}))


def test_a_base_that_is_not_there_yet_is_not_fetched(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(tmp_path / "cache"))
    told = preview(write(tmp_path, "bundled:smollm2-135m-instruct"))
    assert "steps" not in told
    assert sum(told["learn"].values()) > 0


def test_the_command_line_tells_it_and_wants_no_output(recipe, capsys):
    assert main(["train", str(recipe), "--check"]) == 0
    out = capsys.readouterr().out
    assert "all that can be told without training is right" in out
    assert "steps, " in out
    assert not (recipe.parent / CHECKPOINTS).exists()
    assert main(["train", str(recipe)]) == 2
    assert "Give --output FOLDER, or --check" in capsys.readouterr().err
