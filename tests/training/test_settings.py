import json
from pathlib import Path

import pytest
import yaml

from lmsys_ensemble.data.corpus import DataFile
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.training.settings import TrainSettings, data_files, read_train_settings

LEAST = {"name": "mine", "scorer": "llama", "base_model": "bundled:x", "data": {"files": ["a.csv"]}}


def write(folder, **changes):
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({**LEAST, **changes}))
    return path


def test_the_least_recipe_is_enough(tmp_path):
    settings = read_train_settings(write(tmp_path))
    assert settings.data.files == ["a.csv"]
    assert settings.head.pooling == "last_token"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train_epochs": 3}, r"unknown key 'num_train_epochs' \(here: optimizer\.epochs\)"),
        ({"optimizer": {"optim": "adamw_torch"}}, r"unknown key 'optimizer\.optim' \(here: optimizer\.name\)"),
        ({"learning_rate": 1e-4}, r"unknown key 'learning_rate' \(did you mean optimizer\.learning_rate\?\)"),
        ({"optimizer": {"learning_rate": "fast"}}, r"optimizer\.learning_rate: .*, got 'fast'"),
        ({"optimiser": {}}, r"unknown key 'optimiser' \(did you mean 'optimizer'\?\)"),
        ({"lora": {"rank": 8}}, r"unknown key 'lora\.rank'"),
        ({"lora": {"r": 0}}, r"lora\.r: .*greater than or equal to 1"),
        ({"optimizer": {"learning_rate": 0}}, r"optimizer\.learning_rate: .*greater than 0"),
        ({"scorer": "bert"}, r"scorer: .*'llama', 'gemma' or 'classifier'"),
        ({"truncation": "head"}, r"truncation: .*'tail', 'per_field' or 'balanced'"),
        ({"head": {"pooling": "mean"}}, r"head\.pooling: .*'last_token' or 'response_spans'"),
        ({"classes": 4}, r"classes: .*less than or equal to 3"),
        ({"version": 2}, r"version: .*1"),
        ({"lora": {"target_modules": []}}, r"lora\.target_modules: .*at least 1"),
        ({"lora": {"first_layer": 2, "freeze_layers": 2}}, r"first_layer and freeze_layers say the same"),
        ({"lora": {"freeze_layers": 2, "layers_to_transform": [3]}}, r"freeze_layers and layers_to_transform say"),
        ({"quantization": "nf8"}, r"quantization: .*'none', 'nf4' or 'int8'"),
        ({"optimizer": {"name": "sgd"}}, r"optimizer\.name: .*'adamw_torch', 'adamw_8bit' or 'paged_adamw_8bit'"),
        ({"optimizer": {"learning_rate": float("inf")}}, r"optimizer\.learning_rate: .*finite"),
        ({"optimizer": {"head_learning_rate": float("inf")}}, r"optimizer\.head_learning_rate: .*finite"),
        ({"optimizer": {"weight_decay": float("inf")}}, r"optimizer\.weight_decay: .*finite"),
        ({"optimizer": {"head_weight_decay": float("inf")}}, r"optimizer\.head_weight_decay: .*finite"),
        ({"optimizer": {"head_l2": float("inf")}}, r"optimizer\.head_l2: .*finite"),
        ({"optimizer": {"label_smoothing": 1}}, r"optimizer\.label_smoothing: .*less than 1"),
        ({"data": {"class_weights": {"draw": 2}}}, r"class_weights names draw; the classes are model_a, model_b, tie"),
        ({"data": {"weights": {"x": -1}}}, r"data\.weights\.x: .*greater than or equal to 0"),
        ({"data": {"holdout": {"default": 1.2}}}, r"data\.holdout\.default: .*less than 1"),
        ({"evaluation": {"per_epoch": 0, "patience": 2}}, r"evaluation: .*need per_epoch above 0"),
        ({"batches": {"token": 9}}, r"unknown key 'batches\.token' \(did you mean 'tokens'\?\)"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=rf"train\.yaml: .*{message}"):
        read_train_settings(write(tmp_path, **changes))


def test_an_ensemble_is_told_from_a_recipe(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.yaml describes an ensemble, not a training"):
        read_train_settings(write(tmp_path, scorers=[]))


def test_what_others_call_a_setting_leads_to_keys_that_there_are():
    known = set(TrainSettings.model_fields)
    for instead in TrainSettings.called_elsewhere.values():
        first = instead.split()[0].rstrip(",:")
        section, _, key = first.partition(".")
        if first == "no":
            continue
        assert section in known, instead
        if key:
            assert key in TrainSettings.model_fields[section].annotation.model_fields, instead


def test_sources_whose_names_are_numbers_may_be_written_as_numbers(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump({**LEAST, "data": {"weights": {1: 6.0}, "rows": {2: 9}, "holdout": {"3": 0.2}}}))
    data = read_train_settings(path).data
    assert (data.weights, data.rows, data.holdout) == ({"1": 6.0}, {"2": 9}, {"3": 0.2})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*nowhere\.yaml"):
        read_train_settings(tmp_path / "nowhere.yaml")


def test_data_lie_beside_the_recipe_or_in_the_folder_that_is_given(tmp_path, monkeypatch):
    for place in ("beside", "given"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.csv").touch()
    monkeypatch.setenv("SOURCE", "a")
    settings = TrainSettings.model_validate({**LEAST, "data": {"files": ["$SOURCE.csv"]}})
    assert data_files(settings, tmp_path / "beside", None) == [DataFile(tmp_path / "beside" / "a.csv")]
    assert data_files(settings, tmp_path / "beside", tmp_path / "given") == [DataFile(tmp_path / "given" / "a.csv")]


def test_files_may_name_public_formats_unless_a_file_is_called_so(tmp_path):
    for name in ("train.csv", "lmsys=x.csv"):
        (tmp_path / name).touch()
    settings = TrainSettings.model_validate({**LEAST, "data": {"files": ["lmsys=train.csv", "lmsys=x.csv"]}})
    assert data_files(settings, tmp_path, None) == [
        DataFile(tmp_path / "train.csv", "lmsys"), DataFile(tmp_path / "lmsys=x.csv"),
    ]  # fmt: skip
    settings = TrainSettings.model_validate({**LEAST, "data": {"files": ["=train.csv"]}})
    with pytest.raises(InputError, match=r"'=train\.csv' must be SOURCE=FILE or a file"):
        data_files(settings, tmp_path, None)


def test_data_that_are_not_there_are_all_named_with_the_cure(tmp_path):
    settings = TrainSettings.model_validate({**LEAST, "data": {"files": ["a.csv", "b.csv"]}})
    with pytest.raises(ConfigError, match=r"a\.csv, .*b\.csv; say where with --data FOLDER"):
        data_files(settings, tmp_path, None)


@pytest.mark.parametrize(
    ("lora", "first_layer"),
    [({}, 0), ({"first_layer": 5}, 5), ({"freeze_layers": 16}, 16), ({"layers_to_transform": [9, 4, 6]}, 4)],
)
def test_layers_are_named_in_one_of_three_ways_and_written_down_readably(tmp_path, lora, first_layer):
    settings = read_train_settings(write(tmp_path, lora=lora))
    assert settings.lora.first_layer == first_layer
    assert TrainSettings.model_validate(settings.model_dump()) == settings


@pytest.mark.parametrize("name", ["smollm2-135m", "gemma-3-270m"])
def test_the_recipes_of_the_bundled_adapters_are_read_as_ever(name):
    folder = Path(__file__).parents[2] / "models" / name
    settings = read_train_settings(folder / "train.yaml")
    recorded = json.loads((folder / "recipe.json").read_text())["training"]["settings"]
    assert TrainSettings.model_validate(recorded).lora == settings.lora
    assert (settings.quantization, settings.head.hidden_size, settings.evaluation.keeps_best) == ("none", None, False)
    assert settings.head.model_dump() == {"pooling": "response_spans", "layers": settings.head.layers}
