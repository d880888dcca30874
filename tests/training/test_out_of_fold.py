"""Files of out-of-fold predictions and their figures, on logits that are drawn at random."""

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.corpus import as_labelled
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.predictions import read_labels, read_predictions
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.training.out_of_fold import figures_table, measure_folds, read_folds, write_all, write_fold
from lmsys_ensemble.training.rows import deal
from lmsys_ensemble.training.settings import TrainSettings
from lmsys_ensemble.training.validation import length_baseline
from tests.training.synthetic import make_preferences


def make_table():
    """Return 60 battles of two sources, whose rows share prompts in pairs."""
    two = make_preferences(20, 1, "two").assign(id=range(100, 120))
    table = pd.concat([make_preferences(40, 0, "one"), two], ignore_index=True)
    return table.assign(prompt=[f"prompt {row // 2}" for row in range(60)])


def write_folds(folder, table, n_classes=3, n_splits=3):
    """Write the files of all folds; returns the rows, the logits in their order, and the files."""
    settings = TrainSettings.model_validate({"name": "x", "scorer": "llama", "base_model": "any", "classes": n_classes})
    folds = deal(as_labelled(table, settings.task), settings, n_splits)
    logits = np.random.default_rng(0).normal(size=(len(table), n_classes)).astype(np.float32)
    paths = []
    for fold in range(1, n_splits + 1):
        paths.append(folder / f"fold-{fold}" / "oof.parquet")
        write_fold(paths[-1], folds, fold, logits[folds.rows(fold)], settings.task)
    return folds, logits, paths


def log_loss(labels, probabilities):
    return -np.log((labels * probabilities).sum(axis=1)).mean()


def test_rows_of_all_folds_are_in_the_order_of_the_data(tmp_path):
    table = make_table()
    folds, logits, paths = write_folds(tmp_path, table)
    oof = read_folds(paths, folds)
    assert oof["id"].tolist() == table["id"].tolist()
    assert oof["source"].tolist() == table["source"].tolist()
    np.testing.assert_array_equal(oof["fold"], folds.fold_of)
    np.testing.assert_array_equal(oof[["logit_model_a", "logit_model_b", "logit_tie"]], logits)
    np.testing.assert_allclose(oof[list(THREE_WAY.columns)], softmax(logits))
    assert oof["group"].tolist() == [row // 2 for row in range(60)]


@pytest.mark.parametrize("ids", [range(60), [f"00{row}" for row in range(60)]])
def test_what_is_written_is_read_as_predictions_and_as_labels_with_ids_as_they_came(tmp_path, ids):
    table = make_table().assign(id=list(ids))
    folds, logits, paths = write_folds(tmp_path, table)
    write_all(tmp_path, read_folds(paths, folds), THREE_WAY)
    predictions, labels = read_predictions(tmp_path / "oof.parquet"), read_labels(tmp_path / "labels.parquet")
    assert predictions.ids.tolist() == labels.ids.tolist() == list(ids)
    np.testing.assert_allclose(predictions.probabilities, softmax(logits))
    np.testing.assert_array_equal(labels.labels, parse_labels(table))
    assert labels.groups.nunique() == 30


def test_a_file_that_was_changed_is_found_out(tmp_path):
    folds, _, paths = write_folds(tmp_path, make_table())
    pd.read_parquet(paths[1]).iloc[1:].to_parquet(paths[1])
    with pytest.raises(ConfigError, match=r"do not hold each of the 60 rows once\. Remove the fold whose file"):
        read_folds(paths, folds)


def test_figures_are_those_of_the_predictions_beside_baselines_fitted_out_of_fold(tmp_path):
    table = make_table()
    folds, logits, paths = write_folds(tmp_path, table)
    figures = measure_folds(read_folds(paths, folds), folds, THREE_WAY)
    labels, probabilities = parse_labels(table), softmax(logits)
    prior, lengths = np.empty_like(labels), np.empty_like(labels)
    for fold in (1, 2, 3):
        for source in ("one", "two"):
            same = (table["source"] == source).to_numpy()
            learn, held = (np.flatnonzero(same & inside) for inside in (folds.fold_of != fold, folds.fold_of == fold))
            prior[held] = labels[learn].mean(axis=0)
            lengths[held] = length_baseline(folds.data.take(learn), folds.data.take(held))
    parts = [(figures["overall"]["all"], np.ones(60, dtype=bool))]
    parts += [(figures["overall"][source], (table["source"] == source).to_numpy()) for source in ("one", "two")]
    parts += [(entry["figures"]["all"], folds.fold_of == entry["fold"]) for entry in figures["folds"]]
    right = probabilities.argmax(axis=1) == labels.argmax(axis=1)
    for found, rows in parts:
        assert found["rows"] == rows.sum()
        assert found["log_loss"] == pytest.approx(log_loss(labels[rows], probabilities[rows]), abs=1e-4)
        assert found["accuracy"] == pytest.approx(right[rows].mean(), abs=1e-4)
        assert found["class_prior"] == pytest.approx(log_loss(labels[rows], prior[rows]), abs=1e-4)
        assert found["length_only"] == pytest.approx(log_loss(labels[rows], lengths[rows]), abs=1e-4)
        for name in ("log_loss", "accuracy"):
            low, high = found[f"{name}_interval"]
            assert low < found[name] < high
    assert (figures["rows"], figures["groups"]) == (60, 30)
    assert sum(entry["groups"] for entry in figures["folds"]) == 30
    shown = figures_table(figures)
    assert shown[""].tolist() == ["fold 1", "fold 2", "fold 3", "all folds, one", "all folds, two", "all folds"]
    assert shown["log loss"].iloc[-1] == f"{figures['overall']['all']['log_loss']:.4f}"


def test_two_classes_have_two_columns_each(tmp_path):
    table = make_table()[lambda rows: rows["winner"] != "tie"]
    folds, _, paths = write_folds(tmp_path, table, n_classes=2)
    columns = read_folds(paths, folds).columns
    assert [name for name in columns if "model_" in name] == [
        f"{kind}_{name}" for kind in ("winner", "logit", "label") for name in ("model_a", "model_b")
    ]
    assert measure_folds(read_folds(paths, folds), folds, TWO_WAY)["overall"]["all"]["rows"] == len(table)
    write_all(tmp_path, read_folds(paths, folds), TWO_WAY)
    labels = pd.read_parquet(tmp_path / "labels.parquet")
    assert tuple(name for name in labels if name.startswith("winner")) == TWO_WAY.columns
