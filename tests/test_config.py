import shutil
from pathlib import Path

import pytest
import yaml

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.commands.scoring import make_ensemble
from lmsys_ensemble.config import bundled_config, find_config, models_folder, read_config, write_config
from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.errors import ConfigError, RegistryError
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.scorers.saved import SavedScorer
from lmsys_ensemble.testing.fake import FakeScorer

INLINE = """
version: 1
task: three_way
scorers:
  - {type: fake, seed: 3, name: one}
  - {type: saved, path: probabilities.csv}
blender: {weights: [0.6, 0.4], temperature: 1.05}
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_states_scorers_blender_and_task(tmp_path):
    scorers, blender, task = read_config(write(tmp_path / "mine.yaml", INLINE))
    assert [type(scorer) for scorer in scorers] == [FakeScorer, SavedScorer]
    assert (scorers[0].seed, scorers[0].name, scorers[1].name) == (3, "one", "probabilities")
    assert (blender.weights, blender.temperature) == ([0.6, 0.4], 1.05)
    assert task == THREE_WAY


@pytest.mark.parametrize("entry", ["scorers/one/scorer.yaml", "scorers/one"])
def test_paths_are_relative_to_the_file_that_states_them(entry, tmp_path, monkeypatch):
    folder = tmp_path / "scorers" / "one"
    write(folder / "scorer.yaml", "{type: saved, path: probabilities.csv}")
    write(folder / "probabilities.csv", "id\n")
    Blender(weights=[1.0]).save(tmp_path / "blender.json")
    config = write(tmp_path / "mine.yaml", f"scorers: [{entry}]\nblender: blender.json\n")
    monkeypatch.chdir(write(tmp_path / "elsewhere" / "file", "").parent)
    scorers, blender, _ = read_config(config)
    assert scorers[0].path == str(folder / "probabilities.csv")
    assert blender.get_params() == Blender(weights=[1.0]).get_params()


def test_a_setting_that_is_no_path_here_stays_as_it_is(tmp_path):
    config = write(tmp_path / "mine.yaml", "scorers: [{type: llama, model: org/name-on-the-hub}]")
    assert read_config(config)[0][0].model == "org/name-on-the-hub"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scorers: []", "at least one scorer"),
        ("blender: {}", "scorers: Field required"),
        ("scorers: [{type: fake}]\nblendr: {}", r"unknown key 'blendr' \(did you mean 'blender'\?\)"),
        ("scorers: [{type: fake}]\nversion: 2", "version: "),
        ("scorers: [{type: fake}]\ntask: three", r"unknown task 'three' \(did you mean 'three_way'\?\)"),
        ("scorers: [{type: fke}]", r"no scorer type 'fke' \(did you mean 'fake'\?\)"),
        ("scorers: [{seed: 1}]", "a scorer needs a type: one of choice, classifier, fake"),
        ("scorers: [{type: fake, sead: 1}]", r"'fake' has no setting 'sead' \(did you mean 'seed'\?\)"),
        ("scorers: [{type: saved}]", "'saved' needs the setting 'path'"),
        ("scorers: [absent.yaml]", "there is no file .*absent.yaml"),
        ("scorers: [listed.yaml]", "listed.yaml: a scorer must be a mapping with a type, got list"),
        ("scorers: [{type: fake}]\nblender: {wieghts: [1]}", r"no setting 'wieghts' \(did you mean 'weights'\?\)"),
        ("scorers: [{type: fake}]\nblender: absent.json", "there is no blender .*absent.json"),
        ("- a list", "expected a mapping of settings, got list"),
        ("", "got NoneType"),
    ],
)
def test_a_wrong_configuration_is_refused_by_file_and_setting(text, words, tmp_path):
    write(tmp_path / "listed.yaml", "[1, 2]")
    with pytest.raises(ConfigError, match=words) as caught:
        read_config(write(tmp_path / "mine.yaml", text))
    assert str(tmp_path) in str(caught.value)


def test_what_the_library_brings_is_found_by_its_bare_name_and_by_its_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    expected = models_folder() / "default.yaml"
    for name in ("default", expected, str(expected)):
        assert find_config(name) == expected
    assert find_config("fast") == models_folder() / "fast.yaml"
    with pytest.raises(ConfigError, match=r"no configuration 'defualt' \(did you mean 'default'\?\)"):
        find_config("defualt")
    monkeypatch.chdir(models_folder().parent)  # a checkout, where the Makefile names the file
    assert find_config("models/default.yaml").samefile(expected)


@pytest.mark.parametrize(
    "misspelt",
    ["default.yaml", "default.yml", "fast.yaml", "fast.json", "models/default.yaml", "models/fast", "./fast", "a/fast"],
)
def test_a_path_that_is_not_there_never_stands_for_the_bundled_models(misspelt, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no configuration file .*; the bundled ensemble is called '"):
        find_config(misspelt)


def test_a_folder_without_an_ensemble_is_said_to_be_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for config in ("run", tmp_path / "run", "."):
        with pytest.raises(ConfigError, match=r"the folder .* holds neither ensemble\.yaml nor scorer\.yaml"):
            find_config(config)


@pytest.mark.parametrize("named", ["adapter", "adapter/scorer.yaml"])
def test_a_trained_adapter_is_an_ensemble_of_one(named, tmp_path):
    write(tmp_path / "adapter" / "scorer.yaml", "{type: fake, seed: 3, n_classes: 2, name: mine}")
    scorers, blender, task = read_config(tmp_path / named)
    assert [(scorer.name, scorer.seed) for scorer in scorers] == [("mine", 3)]
    assert task == TWO_WAY
    assert blender.weights is None


def test_a_recipe_of_training_is_told_from_an_ensemble(tmp_path):
    recipe = write(tmp_path / "train.yaml", "{name: mine, scorer: llama, base_model: x, data: {files: [a.csv]}}")
    with pytest.raises(ConfigError, match=r"train\.yaml is a recipe of training, not an ensemble: give it to .* train"):
        read_config(recipe)


def test_the_default_is_the_bundled_ensemble_whatever_lies_in_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "default" / "ensemble.yaml", "scorers: [{type: fake, name: planted}]")
    write(tmp_path / "fast", "scorers: [{type: fake, name: planted}]")
    for ensemble in (Ensemble(), make_ensemble(None)):
        assert [scorer.name for scorer in ensemble.scorers] == ["smollm2-135m", "gemma-3-270m"]
    assert find_config("default") == Path("default/ensemble.yaml")  # asked for by name, one's own comes first


@pytest.mark.parametrize("name", ["defualt", "../default", "x/../default", "", "default.yaml"])
def test_what_the_library_does_not_bring_is_said(name):
    with pytest.raises(ConfigError, match=r"no ensemble called .* comes with the library"):
        bundled_config(name)


def test_every_configuration_that_the_library_brings_is_valid():
    configs = sorted(models_folder().glob("*.yaml"))
    assert configs
    for config in configs:
        scorers, _, task = read_config(config)
        assert len(scorers) == len(yaml.safe_load(config.read_text())["scorers"])
        assert {scorer.task for scorer in scorers} == {task}


@pytest.mark.parametrize("task", [THREE_WAY, TWO_WAY], ids=lambda task: task.name)
def test_what_is_written_is_what_is_read(task, tmp_path, monkeypatch):
    write(tmp_path / "work" / "saved.csv", "id\n")
    monkeypatch.chdir(tmp_path / "work")
    scorers = [
        FakeScorer(7, scale=0.5, n_classes=task.n_classes, name="grün"),
        SavedScorer("saved.csv", columns=("m1_a", "m1_b", "m1_tie"), n_classes=task.n_classes, name="m1"),
        SavedScorer("absent.csv"),
    ]
    blender = Blender(weights=[0.5, 0.3, 0.2], temperature=[1.0, 1.2, 0.9])
    write_config(tmp_path / "run", scorers, blender, task)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    read, read_blender, read_task = read_config(tmp_path / "moved")
    assert read_task == task
    assert list(read_blender.weights) == [0.5, 0.3, 0.2]
    assert list(read_blender.temperature) == [1.0, 1.2, 0.9]
    assert read[0].settings() == scorers[0].settings()
    assert read[0].task == task
    assert read[1].settings() == {
        "path": str(tmp_path / "work" / "saved.csv"),
        "columns": ["m1_a", "m1_b", "m1_tie"],
        "n_classes": task.n_classes,
        "name": "m1",
    }
    assert read[2].path == "absent.csv"


def test_a_scorer_without_a_registered_name_cannot_be_written(tmp_path):
    class Mine(FakeScorer):
        pass

    with pytest.raises(RegistryError, match="Mine is not registered; add an entry point"):
        write_config(tmp_path / "run", [Mine()], Blender(), THREE_WAY)
    assert not (tmp_path / "run").exists()
