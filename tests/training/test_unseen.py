"""What a run starts from must not have learned from rows held out: refused where it is known, told where it is not."""

import json

import numpy as np
import pytest

from lmsys_ensemble.data.corpus import as_labelled
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.learned_rows import LEARNED_KEY, LearnedRows, read_learned_rows
from lmsys_ensemble.modeling.recipe import read_recipe, write_recipe
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training import SeenRowsWarning, kfold, train
from lmsys_ensemble.training import adapter as adapter_module
from lmsys_ensemble.training.rows import Folds
from lmsys_ensemble.training.unseen import check_folds_unseen, check_unseen
from tests.tiny import make_recipe
from tests.training.fitting import make_settings
from tests.training.staged import TABLE, write

DATA = as_labelled(TABLE, THREE_WAY)


def rows(*bounds):
    return DATA.take(np.arange(*bounds))


def save_stage(folder, learned):
    """Write what is read of a first stage."""
    folder.mkdir(exist_ok=True)
    training = {} if learned is None else {LEARNED_KEY: LearnedRows.of(learned.battles).write(folder)}
    write_recipe(folder, make_recipe(training=training))
    return str(folder)


def starting_from(checkpoints, stage):
    return make_settings(base_model=str(checkpoints.base("llama")), init_adapter=stage)


def test_rows_held_out_that_were_learned_from_are_named_and_refused(checkpoints, tmp_path):
    settings = starting_from(checkpoints, save_stage(tmp_path / "first", rows(40)))
    check_unseen(settings, rows(40, 80))
    swapped = TABLE.rename(columns={"response_a": "response_b", "response_b": "response_a"}).assign(id=TABLE["id"] + 7)
    for table, named in ((TABLE, "38, 39"), (swapped, "45, 46")):
        held = as_labelled(table, THREE_WAY).take(np.arange(38, 60))
        with pytest.raises(ConfigError, match=rf"first has learned from 2 of 22 rows held out: id {named}\. .*seed"):
            check_unseen(settings, held)
    check_unseen(settings, rows(0))


def test_prompts_that_were_learned_from_are_told(checkpoints, tmp_path):
    """Rows 38 and 39 share a prompt."""
    settings = starting_from(checkpoints, save_stage(tmp_path / "first", rows(39)))
    with pytest.warns(SeenRowsWarning, match="from the prompts of 1 of 41 rows held out, with other responses: id 39"):
        check_unseen(settings, rows(39, 80))


def test_a_first_stage_that_says_nothing_is_told(checkpoints, tmp_path):
    settings = starting_from(checkpoints, save_stage(tmp_path / "first", None))
    with pytest.warns(SeenRowsWarning, match="first does not say which rows it has learned from"):
        check_unseen(settings, rows(3))


def test_a_base_that_is_a_merged_model_is_asked_too(tmp_path):
    settings = make_settings(base_model=save_stage(tmp_path / "merged", rows(40)))
    (tmp_path / "merged" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError, match=r"base_model .*merged has learned from 40 of 80 rows held out"):
        check_unseen(settings, DATA)


def test_only_the_folds_that_are_trained_are_asked_about_and_each_about_its_own_stage(checkpoints, tmp_path):
    folds = Folds(DATA, np.repeat([1, 2], 40), None)
    for number, learned in ((1, rows(40, 80)), (2, rows(40))):
        save_stage(tmp_path / f"fold-{number}", learned)
    one = starting_from(checkpoints, str(tmp_path / "fold-1"))
    check_folds_unseen(one, folds, [1])
    with pytest.raises(ConfigError, match=r"from 40 of 80 .* init_adapter: FOLDER/fold-\{fold\}"):
        check_folds_unseen(one, folds, [1, 2])
    check_folds_unseen(starting_from(checkpoints, str(tmp_path / "fold-{fold}")), folds, [1, 2])


def test_teachers_say_that_they_are_out_of_fold_or_are_told(checkpoints, tmp_path):
    folds = Folds(DATA, np.repeat([1, 2], 40), None)
    table = TABLE[["id"]].assign(winner_model_a=1.0, winner_model_b=0.0, winner_tie=0.0)
    table.to_csv(tmp_path / "plain.csv", index=False)
    table.assign(fold=folds.fold_of).to_csv(tmp_path / "oof.csv", index=False)
    table.assign(fold=1).to_csv(tmp_path / "one.csv", index=False)

    def ask(name, **said):
        teachers = [{"file": str(tmp_path / name), **said}]
        check_folds_unseen(
            make_settings(base_model=str(checkpoints.base("llama")), distillation={"teachers": teachers}), folds, [1]
        )

    ask("oof.csv")
    ask("plain.csv", unseen=True)
    for name in ("plain.csv", "one.csv"):
        with pytest.warns(SeenRowsWarning, match=f"{name}: no column 'fold' says that"):
            ask(name)


def test_folds_go_on_from_the_stages_of_the_same_folds_and_from_no_other(checkpoints, tmp_path, monkeypatch):
    base = checkpoints.base("llama")
    kfold(write(tmp_path, base), n_splits=2, output=tmp_path / "first", device="cpu")
    path = write(tmp_path, base, init_adapter="first/fold-{fold}")
    kfold(path, n_splits=2, output=tmp_path / "second", device="cpu")
    for fold in (1, 2):
        stages = [tmp_path / name / f"fold-{fold}" for name in ("first", "second")]
        learned = [read_learned_rows(folder, read_recipe(folder)) for folder in stages]
        assert len(learned[0].rows) < len(TABLE)
        np.testing.assert_array_equal(learned[0].rows, learned[1].rows)
        weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in stages]
        assert weights[0] == weights[1], "no epochs: it is where the first stage ended"
        assert read_recipe(stages[1]).training["settings"]["init_adapter"] == f"fold-{fold}"
    monkeypatch.setattr(adapter_module, "build_model", lambda *_: pytest.fail("loaded the weights first"))
    with pytest.raises(ConfigError, match=r"init_adapter names \{fold\}, and there are no folds"):
        train(path, output=tmp_path / "third", device="cpu")
    for stage in ("first/fold-1", "second/fold-2"):
        recipe = write(tmp_path, base, init_adapter=stage)
        with pytest.raises(ConfigError, match=r"rows held out: id .* Train the first stage with the same data"):
            kfold(recipe, n_splits=2, output=tmp_path / "third", device="cpu")
    with pytest.raises(ConfigError, match="Hold out what the first stage held out"):
        train(recipe, output=tmp_path / "third", device="cpu")
    path = write(tmp_path, base, init_adapter="first/fold-{fold}")  # the recipe was written over
    (tmp_path / "first" / "fold-2").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"there is no folder .*fold-2"):
        kfold(path, n_splits=2, output=tmp_path / "third", device="cpu")
    assert not (tmp_path / "third").exists()
