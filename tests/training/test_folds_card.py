"""What lies beside the folds: an ensemble and a page."""

import pytest

from lmsys_ensemble.files import read_object
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training.folds_card import write_card, write_ensemble
from lmsys_ensemble.training.out_of_fold import measure_folds, read_folds
from lmsys_ensemble.training.settings import TrainSettings
from tests.training.test_out_of_fold import make_table, write_folds


def settings_of(**changes):
    return TrainSettings.model_validate({"name": "x", "scorer": "llama", "base_model": "any", **changes})


@pytest.mark.parametrize(("classes", "task"), [(3, "three_way"), (2, "two_way")])
def test_the_ensemble_names_all_folds_alike(tmp_path, classes, task):
    write_ensemble(tmp_path, settings_of(classes=classes), 3)
    content = read_object(tmp_path / "ensemble.yaml")
    assert content["scorers"] == ["fold-1", "fold-2", "fold-3"]
    assert (content["task"], content["blender"]) == (task, {"method": "equal"})


def test_the_page_states_every_fold_and_what_to_do_with_them(tmp_path):
    folds, _, paths = write_folds(tmp_path, make_table())
    measured = measure_folds(read_folds(paths, folds), folds, THREE_WAY)
    figures = {"n_splits": 3, **measured, "run": {"settings": {"base_model": "any"}}}
    write_card(tmp_path, settings_of(), figures)
    text = (tmp_path / "README.md").read_text()
    for entry in figures["folds"]:
        assert f"| fold {entry['fold']} | {entry['rows']} | {entry['figures']['all']['log_loss']:.4f} |" in text
    low, high = figures["overall"]["all"]["accuracy_interval"]
    assert f"{low:.3f} to {high:.3f}" in text
    assert "does not beat the class prior" in text
    assert "predict --config ensemble.yaml" in text
    assert "merge-adapters fold-1 fold-2 fold-3 --output merged" in text
    assert "60 rows in 30 groups" in text
