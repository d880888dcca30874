"""A lexical model from labelled rows to a folder."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from lmsys_ensemble.cleaning.settings import HygieneSettings
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.lexical.files import load_model, read_record
from lmsys_ensemble.lexical.settings import LexicalSettings
from lmsys_ensemble.modeling.learned_rows import LEARNED_KEY
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.training import fit_lexical
from tests.lexical.longer import make_table

SETTINGS = LexicalSettings(model="logistic", components=2)


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    """Return a fitted model, and what was told meanwhile."""
    told = []
    folder = tmp_path_factory.mktemp("fit") / "counted"
    return fit_lexical(make_table(120), output=folder, settings=SETTINGS, n_splits=3, say=told.append), told


def test_a_folder_scores_and_says_what_it_was_measured_as(fit):
    fitted, told = fit
    names = {path.name for path in fitted.folder.iterdir()}
    assert names == {
        "lexical.json", "lexical.safetensors", "vocabulary.json", "golden.json", "scorer.yaml", "importances.csv",
        "README.md", "oof.parquet", "labels.parquet", "learned_rows.safetensors",
    }  # fmt: skip
    assert yaml.safe_load((fitted.folder / "scorer.yaml").read_text()) == {
        "type": "lexical", "name": "counted", "path": ".",
    }  # fmt: skip
    load_model(fitted.folder)
    record = read_record(fitted.folder)
    assert record.validation == json.loads(json.dumps(fitted.figures["overall"]))
    assert record.training["rows"] == {"one": 60, "two": 60}
    assert fitted.importances["feature"].tolist() == pd.read_csv(fitted.folder / "importances.csv")["feature"].tolist()
    assert any("3 folds" in line for line in told)


def test_rows_are_measured_by_models_that_have_not_seen_their_prompt(fit):
    fitted = fit[0]
    assert fitted.oof["id"].tolist() == list(range(120))
    folds = fitted.oof.groupby(fitted.oof["id"] // 2)["fold"].nunique()
    assert (folds == 1).all()
    overall = fitted.figures["overall"]["all"]
    assert overall["log_loss"] < overall["length_only"] < overall["class_prior"]
    columns = list(THREE_WAY.columns)
    np.testing.assert_allclose(pd.read_parquet(fitted.folder / "oof.parquet")[columns], fitted.oof[columns])
    assert set(pd.read_parquet(fitted.folder / "labels.parquet").columns) >= {"id", "group", *columns}


def test_two_classes_without_folds_and_a_second_fit_only_on_request(tmp_path):
    settings = SETTINGS.model_copy(update={"classes": 2})
    table = make_table(40, task="two_way")
    fitted = fit_lexical(table, output=tmp_path, settings=settings, n_splits=0)
    assert (fitted.figures, fitted.oof) == ({}, None)
    assert load_model(tmp_path).n_classes == 2
    assert read_record(tmp_path).task == TWO_WAY
    with pytest.raises(InputError, match="not empty"):
        fit_lexical(table, output=tmp_path, settings=settings, n_splits=0)
    fit_lexical(
        table, output=tmp_path, settings=settings.model_copy(update={"components": 0}), n_splits=0, overwrite=True
    )
    assert not (tmp_path / "vocabulary.json").exists()


def test_only_a_fit_is_overwritten_and_it_says_which_rows_it_has_seen(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty; it holds no lexical\.json of a fit; name another"):
        fit_lexical(make_table(40), output=tmp_path, settings=SETTINGS, n_splits=0, overwrite=True)
    assert (tmp_path / "README.md").read_text() == "mine"
    fitted = fit_lexical(make_table(40), output=tmp_path / "new", settings=SETTINGS, n_splits=0)
    assert LEARNED_KEY in read_record(fitted.folder).training
    assert (fitted.folder / "learned_rows.safetensors").is_file()


def test_rows_are_cleaned_on_request(tmp_path):
    table = make_table(40)
    table.loc[0, ["response_a", "response_b"]] = ""
    fitted = fit_lexical(table, output=tmp_path, settings=SETTINGS, n_splits=2, hygiene=HygieneSettings())
    assert 0 not in set(fitted.oof["id"])
    assert (tmp_path / "cleaning.json").is_file()


@pytest.mark.parametrize(
    ("rows", "n_splits", "error", "words"),
    [(40, 1, ConfigError, "at least 2"), (1, 0, InputError, "from 1 rows"), (4, 3, InputError, "2 groups into 3")],
)
def test_what_cannot_be_fitted_is_said_before_anything_is_written(tmp_path, rows, n_splits, error, words):
    with pytest.raises(error, match=words):
        fit_lexical(make_table(rows), output=tmp_path / "out", settings=SETTINGS, n_splits=n_splits)
    assert not (tmp_path / "out").exists()
