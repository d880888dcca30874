"""A run that was killed goes on to the weights of one that was not; several processes learn what one does."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lmsys_ensemble.cli import main
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.recipe import read_recipe
from lmsys_ensemble.training import train, trainer
from tests.training.disk import files_of_at_most
from tests.training.test_run import SETTINGS, contents, write_inputs

ROOT = Path(__file__).parents[2]
WEIGHTS = "adapter_model.safetensors"

KILLED = """
import os, signal, sys
import tests.tiny
from lmsys_ensemble.training import train, trainer

mark, calls = trainer.mark_complete, []

def mark_or_die(checkpoint):
    calls.append(checkpoint)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    mark(checkpoint)

trainer.mark_complete = mark_or_die
train(sys.argv[1], output=sys.argv[2], device="cpu")
"""

SHARED = """
import sys
import tests.tiny
from lmsys_ensemble.training import train

train(sys.argv[1], output=sys.argv[2], device="cpu")
"""


def start(code, *arguments, launcher=()):
    command = [sys.executable, *launcher, *([] if launcher else ["-c", code]), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300)


CHANGES = {
    "data": {**SETTINGS["data"], "rows": {"one": 28, "two": 12}},
    "lora": {"r": 4, "alpha": 8, "dropout": 0.2, "first_layer": 1},
    "optimizer": {"head_l2": 0.01, "epochs": 2, "learning_rate": 2.0e-3, "rows_per_step": 16},
    "evaluation": {"per_epoch": 2, "patience": 50},
    "checkpoint_steps": 2,
}


@pytest.fixture(scope="module")
def runs(checkpoints, tmp_path_factory):
    """Return a folder with the recipe, a run that was not interrupted, and one that was killed in a checkpoint."""
    folder = tmp_path_factory.mktemp("resume")
    recipe = write_inputs(folder, checkpoints.base("llama"), **CHANGES)
    train(recipe, output=folder / "whole", device="cpu")
    assert start(KILLED, recipe, folder / "killed").returncode == -signal.SIGKILL
    shutil.copytree(folder / "killed", folder / "interrupted")
    return folder


def test_a_run_that_was_killed_is_resumed_to_the_same_weights(runs):
    killed, whole = runs / "killed", runs / "whole"
    assert not (killed / WEIGHTS).exists()
    written = sorted(path.name for path in (killed / "checkpoints").iterdir())
    assert len([name for name in written if name.startswith("checkpoint-")]) == 2, "the last one is not whole"
    said = []
    train(runs / "train.yaml", output=killed, device="cpu", resume=True, say=said.append)
    assert any(line.startswith(f"{killed}: training goes on from step ") for line in said)
    assert contents(killed).keys() == contents(whole).keys()
    for name, content in contents(whole).items():
        assert contents(killed)[name] == content, name
    assert not (killed / "checkpoints").exists()
    assert read_recipe(whole).training["steps"] > 6


def test_a_folder_that_is_whole_is_measured_and_not_trained_again(runs):
    before, said = contents(runs / "whole"), []
    figures = train(runs / "train.yaml", output=runs / "whole", device="cpu", resume=True, say=said.append)
    assert any("is whole: nothing is trained" in line for line in said)
    assert figures == read_recipe(runs / "whole").validation
    assert contents(runs / "whole") == before


@pytest.mark.parametrize("state", ["interrupted", "whole"])
def test_another_recipe_is_not_resumed_into_a_folder(runs, tmp_path, checkpoints, state):
    copy = shutil.copytree(runs / state, tmp_path / "copy")
    other = {**CHANGES, "optimizer": {**CHANGES["optimizer"], "learning_rate": 1e-3}}
    recipe = write_inputs(tmp_path, checkpoints.base("llama"), **other)
    with pytest.raises(
        ConfigError, match=r"is of another run: settings\.optimizer\.learning_rate is 0\.001, was 0\.002"
    ):
        train(recipe, output=copy, device="cpu", resume=True)


def test_a_run_that_is_stopped_or_fills_the_disk_says_what_is_kept_and_how_it_goes_on(
    runs, tmp_path, monkeypatch, capsys
):
    copy = shutil.copytree(runs / "interrupted", tmp_path / "copy")
    places = copy / "checkpoints"
    last, following = sorted(int(path.name.partition("-")[2]) for path in places.glob("checkpoint-*"))
    words = ["train", str(runs / "train.yaml"), "--output", str(copy), "--device", "cpu", "--resume"]
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "mark_complete", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        assert main(words) == 128 + signal.SIGTERM
    said = capsys.readouterr().err.splitlines()
    assert f"{copy}: training goes on from step {last}" in said
    assert said[-2] == "interrupted"
    assert re.fullmatch(rf"stopped at step {following} of \d+; --resume goes on from step {last}", said[-1])
    with files_of_at_most(24_000):  # room for what learns, but not for the state of the optimiser
        assert main(words) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"{places / f'checkpoint-{following}'} cannot be written; the disk is probably full (" in said
    assert f"{places / f'checkpoint-{last}'} is kept: free some space, and resume from there" in said
    assert [path.name for path in places.glob("checkpoint-*")] == [f"checkpoint-{last}"]


def test_two_processes_learn_what_one_does(checkpoints, tmp_path):
    changes = {
        **CHANGES,
        "lora": {**CHANGES["lora"], "dropout": 0.0},
        "optimizer": {**CHANGES["optimizer"], "epochs": 1},
        "batches": {"tokens": 500},
        "swap_augmentation": False,
    }
    recipe = write_inputs(tmp_path, checkpoints.base("llama"), **changes)
    (tmp_path / "shared.py").write_text(SHARED)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(tmp_path / "shared.py")]
    assert start("", recipe, tmp_path / "two", launcher=launcher).returncode == 0
    train(recipe, output=tmp_path / "one", device="cpu")
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=0)
    figures = [read_recipe(tmp_path / name).validation for name in ("one", "two")]
    assert figures[0] == figures[1]
