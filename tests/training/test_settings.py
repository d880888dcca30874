import pytest
import yaml

from lmsys_ensemble.errors import ConfigError
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
        ({"optimiser": {}}, r"unknown key 'optimiser' \(did you mean 'optimizer'\?\)"),
        ({"lora": {"rank": 8}}, r"unknown key 'lora\.rank'"),
        ({"lora": {"r": 0}}, r"lora\.r: .*greater than or equal to 1"),
        ({"optimizer": {"learning_rate": 0}}, r"optimizer\.learning_rate: .*greater than 0"),
        ({"scorer": "bert"}, r"scorer: .*'llama', 'gemma' or 'classifier'"),
        ({"truncation": "head"}, r"truncation: .*'tail', 'per_field' or 'balanced'"),
        ({"head": {"pooling": "mean"}}, r"head\.pooling: .*'last_token' or 'response_spans'"),
        ({"classes": 4}, r"classes: .*less than or equal to 3"),
        ({"version": 2}, r"version: .*1"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=rf"train\.yaml: .*{message}"):
        read_train_settings(write(tmp_path, **changes))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*nowhere\.yaml"):
        read_train_settings(tmp_path / "nowhere.yaml")


def test_data_lie_beside_the_recipe_or_in_the_folder_that_is_given(tmp_path, monkeypatch):
    for place in ("beside", "given"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.csv").touch()
    monkeypatch.setenv("SOURCE", "a")
    settings = TrainSettings.model_validate({**LEAST, "data": {"files": ["$SOURCE.csv"]}})
    assert data_files(settings, tmp_path / "beside", None) == [tmp_path / "beside" / "a.csv"]
    assert data_files(settings, tmp_path / "beside", tmp_path / "given") == [tmp_path / "given" / "a.csv"]


def test_data_that_are_not_there_are_all_named_with_the_cure(tmp_path):
    settings = TrainSettings.model_validate({**LEAST, "data": {"files": ["a.csv", "b.csv"]}})
    with pytest.raises(ConfigError, match=r"a\.csv, .*b\.csv; say where with --data FOLDER"):
        data_files(settings, tmp_path, None)
