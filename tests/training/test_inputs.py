from pathlib import Path

import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import sha256_of
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE
from lmsys_ensemble.training.inputs import describe_inputs, locate_inputs, without_paths
from tests.training.fitting import make_settings


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make data with two teachers of one name, and a recipe's folder with a first stage."""
    for name in ("data/one/oof.csv", "data/two/oof.csv", "data/b.csv", f"recipes/first/{WEIGHTS_FILE}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setenv("RUN", "two")
    return tmp_path


def asked(*files):
    return make_settings(init_adapter="first", distillation={"teachers": [{"file": file} for file in files]})


def test_teachers_lie_beside_the_data_and_a_first_stage_beside_the_recipe(folder):
    found = locate_inputs(asked("one/oof.csv", "$RUN/oof.csv"), folder / "recipes", folder / "data")
    teachers = [Path(teacher.file) for teacher in found.distillation.teachers]
    assert teachers == [folder / "data" / "one" / "oof.csv", folder / "data" / "two" / "oof.csv"]
    assert Path(found.init_adapter) == folder / "recipes" / "first"
    beside = locate_inputs(make_settings(distillation={"teachers": [{"file": "b.csv"}]}), folder / "data")
    assert beside.distillation.teachers[0].file == str(folder / "data" / "b.csv")


def test_what_is_passed_on_tells_inputs_apart_by_name_and_knows_them_by_hash(folder):
    found = locate_inputs(asked("one/oof.csv", "two/oof.csv", "b.csv"), folder / "recipes", folder / "data")
    named = without_paths(found)
    assert [teacher.file for teacher in named.distillation.teachers] == ["one/oof.csv", "two/oof.csv", "b.csv"]
    assert named.init_adapter == "first"
    files = [folder / "data" / name for name in ("one/oof.csv", "two/oof.csv", "b.csv")]
    assert describe_inputs(found) == {
        "teachers_sha256": [sha256_of(path) for path in files],
        "init_adapter_sha256": {WEIGHTS_FILE: sha256_of(folder / "recipes" / "first" / WEIGHTS_FILE)},
    }


def test_a_recipe_without_inputs_stays_as_it_is(folder):
    settings = make_settings()
    assert locate_inputs(settings, folder) == without_paths(settings) == settings
    assert describe_inputs(settings) == {}


def test_data_files_are_named_without_places_on_this_machine(tmp_path):
    files = ["one.csv", "sub/two.csv", "arena=three.csv", f"{tmp_path}/four.csv", f"arena={tmp_path}/five.csv"]
    named = without_paths(make_settings(data={"files": files}))
    assert named.data.files == ["one.csv", "sub/two.csv", "arena=three.csv", "four.csv", "arena=five.csv"]


def test_what_is_not_there_is_named_with_the_cure(folder):
    with pytest.raises(ConfigError, match=r"not there: .*no\.csv; they lie beside the data, .* --data FOLDER"):
        locate_inputs(asked("b.csv", "no.csv"), folder / "recipes", folder / "data")
    with pytest.raises(ConfigError, match=r"init_adapter: there is no folder .*first; .* relative to the recipe"):
        locate_inputs(asked("b.csv"), folder / "data")
