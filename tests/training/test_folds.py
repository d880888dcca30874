"""Folds on a tiny base: each adapter knows nothing of its fold, and what is written of all is what scoring gives."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.cli import main
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.predictions import read_labels, read_predictions
from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.errors import ConfigError, EnsembleError, InputError
from lmsys_ensemble.modeling.recipe import read_recipe
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.scorers.saved import SavedScorer
from lmsys_ensemble.training import Trained, kfold
from lmsys_ensemble.training import folds as folds_module
from lmsys_ensemble.training.fold_places import place
from tests.tiny import save_base
from tests.training.synthetic import make_preferences
from tests.training.test_locks import held_elsewhere
from tests.training.test_resume import ROOT, start
from tests.training.test_run import contents

N_SPLITS = 3
WEIGHTS = "adapter_model.safetensors"
MADE_OF_ALL = ["README.md", "ensemble.yaml", "folds.json", "labels.parquet", "oof.parquet"]
COLUMNS = ["winner_model_a", "winner_model_b", "winner_tie"]
LOGITS = ["logit_model_a", "logit_model_b", "logit_tie"]

SETTINGS = {
    "version": 1,
    "name": "tiny",
    "scorer": "llama",
    "data": {"files": ["train.csv"]},
    "max_tokens": 96,
    "lora": {"r": 2, "alpha": 4, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]},
    "optimizer": {"head_l2": 0.01, "epochs": 1, "learning_rate": 2.0e-3, "rows_per_step": 16},
    "swap_augmentation": False,
    "checkpoint_steps": 1,
    "autocast": "float32",
}

ELSEWHERE = """
import os, signal, sys
import numpy as np
import tests.tiny
from lmsys_ensemble.cli import main
from lmsys_ensemble.config import read_config
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.training import kfold, trainer

recipe, config, table, logits, blend, killed = sys.argv[1:]
scorers, _, _ = read_config(config)
battles = parse_battles(table)
found = []
for scorer in scorers:
    with scorer:
        found.append(scorer.score(battles))
np.save(logits, np.stack(found))
assert main(["predict", "--config", config, "--input", table, "--output", blend, "--devices", "cpu"]) == 0

mark, calls = trainer.mark_complete, []

def mark_or_die(checkpoint):
    mark(checkpoint)
    calls.append(checkpoint)
    if len(calls) == 3:  # in the second fold, after its first step of two
        os.kill(os.getpid(), signal.SIGKILL)

trainer.mark_complete = mark_or_die
kfold(recipe, n_splits=3, output=killed, device="cpu")
"""
"""A process of its own scores with all folds, then trains folds and is killed: it is the imports that take long."""


def make_table():
    """Return 48 battles of two sources, whose rows share prompts in pairs."""
    two = make_preferences(16, 1, "two").assign(id=range(100, 116))
    table = pd.concat([make_preferences(32, 0, "one"), two], ignore_index=True)
    return table.assign(prompt=[json.dumps([f"prompt {row // 2}"]) for row in range(48)])


def write_inputs(folder, base, table=None, **changes):
    folder.mkdir(exist_ok=True)
    (make_table() if table is None else table).to_csv(folder / "train.csv", index=False)
    (folder / "train.yaml").write_text(yaml.safe_dump({**SETTINGS, "base_model": str(base), **changes}))
    return folder / "train.yaml"


def train(recipe, output, **options):
    return kfold(recipe, n_splits=N_SPLITS, output=output, device="cpu", **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base("llama", tmp_path_factory.mktemp("two-layers") / "base", num_hidden_layers=2)


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    """Return the recipe, the folder of a run with all folds, and what came of it."""
    folder, said = tmp_path_factory.mktemp("folds"), []
    recipe = write_inputs(folder, base)
    return recipe, folder / "trained", train(recipe, folder / "trained", say=said.append), said


@pytest.fixture(scope="module")
def elsewhere(run):
    """Return the folder of what another process did."""
    recipe, folder, _, _ = run
    place = recipe.parent  # folds that are killed lie as far from the base as the others
    files = [folder / "ensemble.yaml", place / "train.csv", place / "logits.npy", place / "blend.csv", place / "killed"]
    assert start(ELSEWHERE, recipe, *files).returncode == -signal.SIGKILL
    return place


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def oof_of(folder):
    return pd.read_parquet(folder / "oof.parquet")


def test_every_row_is_predicted_once_in_the_order_of_the_data(run):
    _, folder, trained, said = run
    table, oof = make_table(), oof_of(folder)
    assert (trained.finished, trained.missing) == ((1, 2, 3), ())
    pd.testing.assert_frame_equal(trained.oof, oof)
    assert oof["id"].tolist() == table["id"].tolist()
    assert oof["source"].tolist() == table["source"].tolist()
    assert set(oof["fold"]) == {1, 2, 3}
    assert (oof.groupby(table["prompt"].to_numpy())["fold"].nunique() == 1).all()
    assert (oof.groupby("group")["fold"].nunique() == 1).all()
    assert oof.groupby("fold")["source"].value_counts().unstack().to_numpy().min() >= 4
    np.testing.assert_allclose(oof[COLUMNS], softmax(oof[LOGITS].to_numpy()), atol=1e-7)
    assert oof[LOGITS].dtypes.eq("float32").all()
    np.testing.assert_array_equal(oof[["label_model_a", "label_model_b", "label_tie"]], parse_labels(table))
    assert any("data.holdout is for runs without folds" in line for line in said)


def test_every_fold_is_a_scorer_that_learned_from_the_other_folds_and_from_a_fresh_base(run):
    _, folder, _, _ = run
    oof = oof_of(folder)
    for fold in (1, 2, 3):
        recipe = read_recipe(folder / f"fold-{fold}")
        assert sum(recipe.training["rows"].values()) == (oof["fold"] != fold).sum()
        assert recipe.validation["all"]["rows"] == (oof["fold"] == fold).sum()
        assert recipe.training["settings"]["name"] == f"tiny-fold-{fold}"


def test_a_row_out_of_fold_is_what_the_scorer_of_its_fold_gives_in_a_new_process(run, elsewhere):
    _, folder, _, _ = run
    logits, oof = np.load(elsewhere / "logits.npy"), oof_of(folder)
    own = logits[oof["fold"] - 1, np.arange(len(oof))]
    np.testing.assert_allclose(own, oof[LOGITS], atol=1e-5)
    others = logits[oof["fold"] % 3, np.arange(len(oof))]
    assert np.abs(others - oof[LOGITS]).to_numpy().max(axis=1).min() > 1e-4
    blend = pd.read_csv(elsewhere / "blend.csv")[COLUMNS]
    np.testing.assert_allclose(blend, np.mean([softmax(member) for member in logits], axis=0), atol=1e-5)


def test_no_row_of_a_fold_has_influenced_its_adapter(run, base, tmp_path):
    """Texts and labels of one fold change; the adapter of that fold stays the same to the byte, the others do not."""
    _, folder, _, _ = run
    table, inside = make_table(), oof_of(folder)["fold"].to_numpy() == 2
    changed = table.assign(
        response_a=np.where(inside, json.dumps(["river stone " * 9]), table["response_a"]),
        winner=np.where(inside, np.roll(table["winner"], 1), table["winner"]),
    )
    assert (changed["winner"] != table["winner"])[inside].any()
    recipe = write_inputs(tmp_path, base, changed)
    train(recipe, tmp_path / "trained", fold=2)
    train(recipe, tmp_path / "trained", fold=3)
    weights = [
        [(place / f"fold-{fold}" / WEIGHTS).read_bytes() for fold in (2, 3)] for place in (folder, tmp_path / "trained")
    ]
    assert weights[0][0] == weights[1][0]
    assert weights[0][1] != weights[1][1]


def test_the_figures_and_the_page_name_no_path_of_the_machine(run):
    _, folder, trained, _ = run
    assert json.loads((folder / "folds.json").read_text()) == trained.figures
    oof = oof_of(folder)
    losses = -np.log((parse_labels(make_table()) * oof[COLUMNS].to_numpy()).sum(axis=1))
    assert trained.figures["overall"]["all"]["log_loss"] == pytest.approx(losses.mean(), abs=1e-4)
    for entry in trained.figures["folds"]:
        assert entry["figures"]["all"] == read_recipe(folder / f"fold-{entry['fold']}").validation["all"]
    for name in ("README.md", "folds.json", "ensemble.yaml", "fold-1/fold.json"):
        assert str(folder.parent) not in (folder / name).read_text(), name


def test_commands_and_ensembles_take_the_files_as_they_are(run, tmp_path, capsys):
    recipe, folder, trained, _ = run
    predictions, labels = read_predictions(folder / "oof.parquet"), read_labels(folder / "labels.parquet")
    np.testing.assert_array_equal(predictions.ids, labels.ids)
    np.testing.assert_array_equal(labels.labels, parse_labels(make_table()))
    assert labels.groups.nunique() == 24
    other = shutil.copy(folder / "oof.parquet", tmp_path / "other.parquet")
    oof_of(folder).assign(**dict.fromkeys(COLUMNS, 1 / 3)).to_parquet(other)
    files = ["--probabilities", str(folder / "oof.parquet"), str(other), "--labels", str(folder / "labels.parquet")]
    assert main(["blend", *files, "--out", str(tmp_path / "blender.json"), "--json"]) == 0
    blended = json.loads(capsys.readouterr().out)
    assert blended["members"][0]["log_loss"] == pytest.approx(trained.figures["overall"]["all"]["log_loss"], abs=1e-4)
    assert main(["report", *files, "--out", str(tmp_path / "report.html")]) == 0
    scorers = [SavedScorer(str(path), name=name) for name, path in (("folds", folder / "oof.parquet"), ("x", other))]
    ensemble = Ensemble(scorers, Blender("linear"), progress="off").fit(recipe.parent / "train.csv")
    assert ensemble.blender.member_names_ == ("folds", "x")


def test_a_fold_that_is_whole_is_not_trained_again(run, monkeypatch):
    recipe, folder, trained, _ = run
    before = {place.name: contents(place) for place in folder.glob("fold-*")}
    top = {name: (folder / name).read_bytes() for name in MADE_OF_ALL}
    monkeypatch.setattr(folds_module, "train_adapter", lambda *_, **__: pytest.fail("trained"))
    said = []
    again = train(recipe, folder, say=said.append)
    assert again.figures == trained.figures
    assert sum("is whole: nothing is trained" in line for line in said) == 3
    assert {place.name: contents(place) for place in folder.glob("fold-*")} == before
    assert {name: (folder / name).read_bytes() for name in MADE_OF_ALL} == top


def test_a_run_that_was_killed_in_a_fold_goes_on_to_the_same_bytes(run, elsewhere):
    recipe, folder, _, _ = run
    killed = elsewhere / "killed"
    assert names(killed) == ["fold-1", "fold-2"]
    assert not (killed / "fold-2" / WEIGHTS).exists()
    assert (killed / "fold-2" / "checkpoints" / "checkpoint-1" / "complete").exists()
    train(recipe, killed)
    for fold in (1, 2, 3):
        assert contents(killed / f"fold-{fold}") == contents(folder / f"fold-{fold}")
    for name in MADE_OF_ALL:
        assert (killed / name).read_bytes() == (folder / name).read_bytes(), name
    (killed / "fold-2" / "oof.parquet").unlink()  # killed between the adapter and its predictions
    train(recipe, killed)
    assert (killed / "oof.parquet").read_bytes() == (folder / "oof.parquet").read_bytes()


def test_folds_that_ran_elsewhere_come_together(run, tmp_path, capsys):
    recipe, folder, trained, _ = run
    gathered = folder.parent / "gathered"
    for fold in (1, 3):
        shutil.copytree(folder / f"fold-{fold}", gathered / f"fold-{fold}")
    words = ["train", str(recipe), "--folds", "3", "--output", str(gathered), "--device", "cpu"]
    assert main([*words, "--fold", "3", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["folds"], values["figures"]) == ({"finished": [1, 3], "missing": [2]}, None)
    assert not (gathered / "oof.parquet").exists()
    shutil.copytree(folder / "fold-2", gathered / "fold-2")
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f"{trained.figures['overall']['two']['log_loss']:.4f}" in text
    for name in MADE_OF_ALL:
        assert (gathered / name).read_bytes() == (folder / name).read_bytes(), name


DIFFERENCES = {
    "settings": (
        {"optimizer": {**SETTINGS["optimizer"], "learning_rate": 1e-3}}, {},
        r"fold-1 is of another run: settings\.optimizer\.learning_rate is 0\.001, was 0\.002",
    ),
    "data": ({}, {"df": make_table().iloc[:-2]}, "data_sha256"),
    "ids": ({}, {"df": make_table().assign(id=range(48))}, "ids_sources_groups_sha256"),
    "folds": ({}, {"n_splits": 4}, "n_splits is 4, was 3"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_other_settings_or_data_are_refused_before_anything_is_loaded(run, base, tmp_path, monkeypatch, kind):
    changes, options, words = DIFFERENCES[kind]
    _, folder, _, _ = run
    recipe = write_inputs(tmp_path, base, **changes)
    monkeypatch.setattr(folds_module, "train_adapter", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ConfigError, match=words):
        kfold(recipe, output=folder, device="cpu", **{"n_splits": 3, **options})


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Trainer:
    """Takes the place of training: notes which folds it was asked for, and is interrupted in one of them."""

    def __init__(self, interrupted_in=None):
        self.trained, self.interrupted_in = [], interrupted_in

    def __call__(self, settings, learn, held, *, folder, **_):
        self.trained.append(folder.name)
        if folder.name == self.interrupted_in:
            self.interrupted_in = None
            raise KeyboardInterrupt
        (folder / "scorer.yaml").touch()
        return Trained(folder, {}, np.zeros((len(held), 3), dtype=np.float32))


def test_folds_are_replaced_together_once_all_that_replace_them_are_whole(run, base, tmp_path, monkeypatch):
    recipe, folder, _, _ = run
    copy = shutil.copytree(folder, tmp_path / "copy")
    before, trainer = everything(copy), Trainer("next-fold-2")
    monkeypatch.setattr(folds_module, "train_adapter", trainer)
    other = write_inputs(tmp_path, base, optimizer={**SETTINGS["optimizer"], "learning_rate": 1e-3})
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(other, copy, overwrite=True)
    assert "asked for again without overwrite=True, begins anew" in stopped.value.__notes__[0]
    assert before.items() <= everything(copy).items()
    with pytest.raises(ConfigError, match=r"next-fold-1 is of another run: .*learning_rate is 0\.002, was 0\.001"):
        train(recipe, copy)
    assert train(other, copy, fold=3).missing == (2,)
    assert before.items() <= everything(copy).items()
    done = train(other, copy)
    assert trainer.trained == ["next-fold-1", "next-fold-2", "next-fold-3", "next-fold-2"]
    assert names(copy) == names(folder)
    assert done.figures["run"]["settings"]["optimizer"]["learning_rate"] == 1e-3
    assert json.loads((copy / "fold-3" / "fold.json").read_text())["run"] == done.figures["run"]
    assert not (copy / "fold-1" / WEIGHTS).exists(), "what was there is gone"


def test_one_fold_or_all_of_another_number_are_replaced(run, base, tmp_path, monkeypatch):
    recipe, folder, _, _ = run
    copy = shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.setattr(folds_module, "train_adapter", Trainer())
    other = write_inputs(tmp_path, base, seed=5)
    with pytest.raises(ConfigError, match=r"fold-1 is of another run: .*settings\.seed is 5, was 0"):
        train(other, copy, fold=2, overwrite=True)
    train(recipe, copy, fold=2, overwrite=True)
    assert [(copy / f"fold-{fold}" / WEIGHTS).exists() for fold in (1, 2, 3)] == [True, False, True]
    assert names(copy) == names(folder)
    assert kfold(other, n_splits=2, output=copy, device="cpu", overwrite=True).finished == (1, 2)
    assert names(copy) == [name for name in names(folder) if name != "fold-3"]


def test_what_is_wrong_is_told_before_anything_is_replaced(run, base, tmp_path, monkeypatch):
    copy = shutil.copytree(run[1], tmp_path / "copy")
    before = everything(copy)
    monkeypatch.setattr(folds_module, "train_adapter", lambda *_, **__: pytest.fail("trained"))
    recipe = write_inputs(tmp_path, base, lora={**SETTINGS["lora"], "target_modules": ["W_pack"]})
    with pytest.raises(ConfigError, match="no linear layer called 'W_pack'"):
        train(recipe, copy, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cache .*file is a file, expected a folder"):
        train(run[0], copy, overwrite=True, cache=tmp_path / "file")
    assert everything(copy) == before
    assert names(copy) == names(run[1])


def test_a_fold_that_was_killed_before_it_said_anything_is_none(run, tmp_path, monkeypatch):
    (tmp_path / "new" / "fold-3").mkdir(parents=True)
    (tmp_path / "new" / "fold-3" / ".fold.json.1f").touch()
    monkeypatch.setattr(folds_module, "train_adapter", Trainer())
    assert train(run[0], tmp_path / "new").finished == (1, 2, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_splits": 1}, "number of folds must be at least 2, got 1"),
        ({"fold": 0}, "there is no fold 0 of 3; folds are counted from 1"),
        ({"fold": 4}, "there is no fold 4 of 3"),
        ({"n_splits": 25}, "cannot deal 24 groups into 25 folds.*ask for fewer folds, or give more prompts"),
    ],
)
def test_numbers_that_make_no_folds_are_refused_before_anything_is_loaded(run, tmp_path, monkeypatch, options, words):
    monkeypatch.setattr(folds_module, "train_adapter", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(EnsembleError, match=words):
        kfold(run[0], output=tmp_path / "new", device="cpu", **{"n_splits": 3, **options})
    assert not (tmp_path / "new").exists()


def test_weights_are_not_chosen_by_the_rows_that_are_predicted(run, base, tmp_path):
    recipe = write_inputs(tmp_path, base, evaluation={"patience": 2})
    with pytest.raises(ConfigError, match="choose weights by the rows held out"):
        train(recipe, tmp_path / "new")


@pytest.mark.parametrize(
    ("weights", "words"),
    [({"one": 0, "two": 0}, "rows to learn from have weight 0"), ({"tow": 2}, "the source 'tow', but no row is of it")],
)
def test_weights_that_cannot_be_meant_are_told_before_anything_is_loaded(base, tmp_path, monkeypatch, weights, words):
    monkeypatch.setattr(folds_module, "train_adapter", lambda *_, **__: pytest.fail("trained"))
    recipe = write_inputs(tmp_path, base, data={"files": ["train.csv"], "weights": weights})
    with pytest.raises(EnsembleError, match=words):
        train(recipe, tmp_path / "new")


def test_a_folder_of_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "fold-1").mkdir()
    (tmp_path / "fold-1" / "mine").touch()
    with pytest.raises(ConfigError, match=r"holds no fold\.json: it is not of a training with folds"):
        train(run[0], tmp_path, overwrite=True)
    (tmp_path / "fold-1").rename(tmp_path / "other")
    with pytest.raises(InputError, match="is not empty"):
        train(run[0], tmp_path)
    assert (tmp_path / "other" / "mine").exists()


def test_the_command_wants_to_know_how_many_folds_there_are(run, tmp_path, capsys):
    assert main(["train", str(run[0]), "--fold", "2", "--output", str(tmp_path / "new")]) == 2
    assert "--fold 2 is one of how many? Give --folds N, too" in capsys.readouterr().err


def test_two_processes_train_folds_in_one_folder_at_the_same_time(run):
    """Both begin in a new folder; whichever ends last makes of all folds what one process makes of them."""
    recipe, folder, _, _ = run
    shared = folder.parent / "shared"
    words = ["-m", "lmsys_ensemble", "train", str(recipe), "--folds", "3", "--output", str(shared), "--device", "cpu"]
    with subprocess.Popen([sys.executable, *words, "--fold", "1"], cwd=ROOT, stdout=subprocess.DEVNULL) as other:
        train(recipe, shared, fold=3)
        train(recipe, shared, fold=2)
        assert other.wait(timeout=300) == 0
    for name in MADE_OF_ALL:
        assert (shared / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_fold_that_another_process_trains_is_left_to_it(run):
    recipe, folder, _, _ = run
    before = {place.name: contents(place) for place in folder.glob("fold-*")}
    with held_elsewhere(folder, 2):
        for options in ({"fold": 2}, {"fold": 2, "overwrite": True}, {}, {"overwrite": True}):
            with pytest.raises(ConfigError, match=r"fold 2 in .* is being trained by another process"):
                train(recipe, folder, **options)
    assert {place.name: contents(place) for place in folder.glob("fold-*")} == before
    assert all((folder / name).exists() for name in MADE_OF_ALL)


def test_folds_of_another_process_are_of_the_same_run_or_none_is_begun(run, base, tmp_path):
    """The other process has made the folder, and then begun its fold with another recipe."""
    recipe, new = write_inputs(tmp_path, base, seed=5), tmp_path / "new"
    with held_elsewhere(new, 1):
        assert names(new) == []
        shutil.copytree(run[1] / "fold-1", new / "fold-1")
        with pytest.raises(ConfigError, match=r"fold-1 is of another run: .*settings\.seed is 5, was 0"):
            train(recipe, new, fold=2)
        assert names(new) == ["fold-1"]
        shutil.rmtree(new / "fold-1")
        assert folds_module._begin(new, (2,), {"n_splits": 3}, False, place) == set()
    assert names(new) == ["fold-2"]
