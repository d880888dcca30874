"""The folder of a lexical model."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lmsys_ensemble.errors import ConfigError, GoldenError, IntegrityError
from lmsys_ensemble.files import sha256_of
from lmsys_ensemble.lexical.features import read_texts
from lmsys_ensemble.lexical.files import load_model, read_record, save_model
from tests.lexical.longer import fitted


def save(folder, kind="logistic", **changes):
    settings, rows, model = fitted(kind, **changes)
    folder.mkdir(exist_ok=True)
    save_model(folder, model, settings, rows.battles[:3], training={"rows": {"here": 120}})
    return rows, model


def change(folder, name, values):
    """Replace a JSON file or some arrays, and vouch for what is there now."""
    if name.endswith(".safetensors"):
        save_file({**load_file(folder / name), **values}, folder / name)
    else:
        (folder / name).write_text(json.dumps(values))
    record = json.loads((folder / "lexical.json").read_text())
    if name in record["files"]:
        record["files"][name] = sha256_of(folder / name)
        (folder / "lexical.json").write_text(json.dumps(record))


@pytest.mark.parametrize("changes", [{}, {"task": "two_way"}, {"components": 0}, {"kind": "boosted"}], ids=str)
def test_what_is_saved_gives_the_same_logits(tmp_path, changes):
    if changes.get("kind") == "boosted":
        pytest.importorskip("lightgbm", reason="boosted trees need an optional package")
    rows, model = save(tmp_path, **changes)
    loaded = load_model(tmp_path)
    texts = read_texts(rows.battles)
    np.testing.assert_array_equal(loaded.logits(texts), model.logits(texts))
    assert loaded.importances().equals(model.importances())
    record = read_record(tmp_path)
    assert set(record.files) == {path.name for path in tmp_path.iterdir()} - {"lexical.json", "golden.json"}
    assert record.has_trees == ("kind" in changes)
    assert record.training == {"rows": {"here": 120}}


def test_a_folder_without_a_model_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="fit-lexical"):
        read_record(tmp_path)


@pytest.mark.parametrize("name", ["lexical.safetensors", "vocabulary.json"])
def test_a_file_that_was_exchanged_or_lost_is_named(tmp_path, name):
    save(tmp_path)
    with (tmp_path / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(IntegrityError, match=name):
        load_model(tmp_path)
    assert read_record(tmp_path, verify=False).task.n_classes == 3
    (tmp_path / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name} is missing"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("lexical.safetensors", {"idf": np.zeros(3)}, r"idf is of shape \(3,\)"),
        ("lexical.safetensors", {"difference_weights": np.full(35, np.nan)}, "difference_weights is .* not finite"),
        ("vocabulary.json", {"a": 1}, "must be a list of words"),
        ("vocabulary.json", ["a"], "expected finite numbers of shape"),
    ],
)
def test_numbers_that_do_not_belong_together_are_named(tmp_path, name, values, words):
    save(tmp_path)
    change(tmp_path, name, values)
    with pytest.raises(ConfigError, match=words):
        load_model(tmp_path)


def test_another_version_of_the_features_is_refused(tmp_path):
    save(tmp_path)
    record = json.loads((tmp_path / "lexical.json").read_text())
    (tmp_path / "lexical.json").write_text(json.dumps({**record, "features_version": 99}))
    with pytest.raises(ConfigError, match=r"version 99 of the features.*fit it again"):
        read_record(tmp_path)


def test_a_record_that_vouches_for_files_elsewhere_is_refused(tmp_path):
    save(tmp_path)
    record = json.loads((tmp_path / "lexical.json").read_text())
    record["files"]["../lexical.json"] = "0"
    (tmp_path / "lexical.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="files"):
        read_record(tmp_path)


def test_numbers_without_a_digest_are_refused(tmp_path):
    save(tmp_path)
    record = json.loads((tmp_path / "lexical.json").read_text())
    del record["files"]["lexical.safetensors"]
    (tmp_path / "lexical.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"files must hold the digest of lexical\.safetensors"):
        read_record(tmp_path)


def test_golden_rows_catch_a_model_that_gives_other_probabilities(tmp_path):
    save(tmp_path)
    change(tmp_path, "lexical.safetensors", {"difference_weights": np.zeros(35)})
    with pytest.raises(GoldenError, match="they differ by"):
        load_model(tmp_path)
