"""A training takes the place of an earlier one when it is whole, and is known by all that it was made of."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lmsys_ensemble.data.corpus import as_labelled
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.files import read_object
from lmsys_ensemble.modeling.digests import base_sha256
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training import adapter as adapter_module
from lmsys_ensemble.training import run as run_module
from lmsys_ensemble.training import train
from lmsys_ensemble.training.adapter import train_adapter
from lmsys_ensemble.training.job import plan_job
from lmsys_ensemble.training.locks import reserved_output
from lmsys_ensemble.training.output import (
    begin,
    check_output,
    is_finished,
    last_step,
    result_folder,
    says_how_to_go_on,
    take_place,
)
from lmsys_ensemble.training.settings import TrainSettings
from tests.training.staged import SETTINGS, TABLE, write

DATA = as_labelled(TABLE, THREE_WAY)
LEARN, HELD = DATA.take(np.arange(60)), DATA.take(np.arange(60, 80))
LORA = {**SETTINGS["lora"], "first_layer": 1}


@pytest.fixture(scope="module")
def base(checkpoints):
    return checkpoints.base("llama")


def plan(base, folder, learn=LEARN, held=HELD, **changes):
    values = {**SETTINGS, "base_model": str(base), "lora": LORA, **changes}
    return plan_job(TrainSettings.model_validate(values), learn, held, folder, "cpu")


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """Return a folder that is whole; tests must not write to it."""
    folder = tmp_path_factory.mktemp("output")
    settings = TrainSettings.model_validate({**SETTINGS, "base_model": str(base), "lora": LORA})
    train_adapter(settings, LEARN, HELD, folder=folder / "trained", device="cpu", cache=folder / "cache")
    return folder / "trained"


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_hidden_states_are_those_of_every_byte_of_the_base(trained, base):
    (about,) = (trained.parent / "cache").glob("*/about.json")
    assert read_object(about)["base_sha256"] == base_sha256(base) == plan(base, trained).run["base_sha256"]


def test_a_result_is_of_the_run_that_has_its_rows_sources_and_groups(trained, base):
    assert is_finished(trained, plan(base, trained).run)
    others = {
        "held_sha256": {"held": replace(HELD, labels=HELD.labels[::-1])},
        "data_sha256": {"learn": replace(LEARN, labels=LEARN.labels[::-1])},
        "ids_sources_groups_sha256": {"held": replace(HELD, sources=np.array(["new"] * 20, dtype=object))},
    }
    for name, changes in others.items():
        with pytest.raises(ConfigError, match=rf"trained is of another run: {name} is "):
            is_finished(trained, plan(base, trained, **changes).run)
    with pytest.raises(ConfigError, match="ids_sources_groups_sha256"):
        is_finished(trained, plan(base, trained, learn=replace(LEARN, groups=LEARN.groups[::-1])).run)


def test_a_replacement_that_was_begun_is_gone_on_with_beside_what_is_there(trained, base, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "copy")
    begin(folder, plan(base, folder, seed=3).run, anew=True)
    assert not is_finished(folder, plan(base, folder, seed=3).run)
    with pytest.raises(ConfigError, match=r"is of another run: settings\.seed is 0, was 3"):
        is_finished(folder, plan(base, folder).run)


def test_leftovers_of_a_run_that_was_killed_at_its_end_are_removed(trained, base, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "copy")
    run = plan(base, folder).run
    begin(folder, run, anew=True)
    assert is_finished(folder, run)
    take_place(folder)
    assert everything(folder) == everything(trained)


def make_result(folder, content, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


NEW = ("adapter_model.safetensors", "README.md", "curves.csv", "recipe.json", "tensorboard/events", "scorer.yaml")


@pytest.mark.parametrize("moves", range(len(NEW) + 1))
def test_a_result_takes_its_place_though_it_is_killed_on_the_way(tmp_path, monkeypatch, moves):
    make_result(tmp_path, "old", *NEW, "curves.svg", "cleaning.json", "mine.txt", "tensorboard/older")
    make_result(result_folder(tmp_path), "new", *NEW)
    move, moved = os.replace, []

    def move_or_die(*paths):
        if len(moved) == moves:
            raise KeyboardInterrupt
        moved.append(paths)
        move(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", move_or_die)
        if moves < len(NEW):
            with pytest.raises(KeyboardInterrupt):
                take_place(tmp_path)
            assert not (tmp_path / "scorer.yaml").exists(), "half of it is no adapter"
    take_place(tmp_path)
    written = {str(path): content for path, content in everything(tmp_path).items()}
    assert written == {**dict.fromkeys(NEW, b"new"), "mine.txt": b"old"}


def test_a_training_begins_anew_beside_checkpoints_that_are_of_no_run(tmp_path):
    make_result(tmp_path, "", "checkpoints/checkpoint-3/complete")
    assert last_step(tmp_path) == 3
    begin(tmp_path, {"settings": {}}, anew=False)
    assert last_step(tmp_path) is None
    make_result(tmp_path, "", "checkpoints/checkpoint-3/complete")
    begin(tmp_path, {"settings": {}}, anew=False)
    assert last_step(tmp_path) == 3
    begin(tmp_path, {"settings": {}}, anew=True)
    assert last_step(tmp_path) is None


def test_what_is_no_training_is_not_gone_on_with(tmp_path):
    make_result(tmp_path, "", "adapter_model.safetensors", "recipe.json")
    with pytest.raises(ConfigError, match=r"no training that could be gone on with, but adapter_model\.safe"):
        check_output(tmp_path, overwrite=False, resume=True)
    with pytest.raises(InputError, match="is not empty; a trained adapter is not replaced unasked"):
        check_output(tmp_path, overwrite=False, resume=False)
    check_output(tmp_path, overwrite=True, resume=False)
    for begun in ("scorer.yaml", "checkpoints/run.json"):
        make_result(tmp_path / "begun", "", begun)
        check_output(tmp_path / "begun", overwrite=False, resume=True)
        shutil.rmtree(tmp_path / "begun")
    check_output(tmp_path / "begun", overwrite=False, resume=True)


def test_it_says_from_where_it_goes_on_when_it_is_stopped(tmp_path):
    make_result(tmp_path, "", "checkpoints/checkpoint-3/complete", "checkpoints/checkpoint-4/half")
    stop = KeyboardInterrupt()
    stop.add_note("stopped at step 4 of 9")
    with pytest.raises(KeyboardInterrupt) as stopped, says_how_to_go_on(tmp_path, "resume=True"):
        raise stop
    assert stopped.value.__notes__ == ["stopped at step 4 of 9; resume=True goes on from step 3"]
    with pytest.raises(SystemExit) as stopped, says_how_to_go_on(tmp_path / "new", "resume=True"):
        raise SystemExit(143)
    assert stopped.value.__notes__ == ["there is no checkpoint yet, resume=True begins anew"]


def test_an_adapter_stays_until_the_one_that_replaces_it_is_whole(trained, base, tmp_path, monkeypatch):
    """What is wrong with the recipe is told; then training is interrupted; another process trains there."""
    folder = shutil.copytree(trained, tmp_path / "trained")
    before = everything(folder)
    for changes, words in (({"target_modules": ["W_pack"]}, "called 'W_pack'"), ({"first_layer": 9}, "only 2 layers")):
        with pytest.raises(ConfigError, match=words):
            train(write(tmp_path, base, lora={**LORA, **changes}), output=folder, device="cpu", overwrite=True)
        assert everything(folder) == before

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(adapter_module, "fit_lora", interrupt)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(write(tmp_path, base), output=folder, device="cpu", overwrite=True)
    assert stopped.value.__notes__ == ["there is no checkpoint yet, resume=True begins anew"]
    assert before.items() <= everything(folder).items()
    said = []
    with pytest.raises(KeyboardInterrupt):
        train(write(tmp_path, base), output=folder, device="cpu", resume=True, say=said.append)
    assert said[-1] == f"{folder}: training begins anew"
    with reserved_output(folder), pytest.raises(ConfigError, match="is being trained by another process"):
        train(write(tmp_path, base), output=folder, device="cpu", resume=True)


def test_a_cache_that_is_a_file_is_told_before_the_data_are_read(base, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "read_labelled", lambda *_: pytest.fail("read the data first"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cache .*file is a file, expected a folder"):
        train(write(tmp_path, base), output=tmp_path / "new", device="cpu", cache=tmp_path / "file")
    assert not (tmp_path / "new").exists()
