import pytest
import yaml

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import read_object, write_json
from lmsys_ensemble.merging.parts import Base, find_base, read_part, read_parts, scorer_settings
from tests.merging.test_adapters import make_fold


@pytest.fixture(scope="module")
def fold(checkpoints, tmp_path_factory):
    return make_fold(checkpoints.base("llama"), tmp_path_factory.mktemp("parts") / "one" / "fold", 1)


def test_parts_of_one_name_are_told_apart_by_their_folders_and_weights_sum_to_1(checkpoints, fold):
    other = make_fold(checkpoints.base("llama"), fold.parent.parent / "two" / "fold", 2)
    parts = read_parts([fold, other], [3, 1])
    assert [part.name for part in parts] == ["one/fold", "two/fold"]
    assert [part.weight for part in parts] == [0.75, 0.25]
    assert [part.folder for part in parts] == [fold, other]
    with pytest.raises(ConfigError, match="weights must be numbers above 0, got True"):
        read_parts([fold, other], [True, 1])


def test_the_base_is_what_scorer_yaml_names_or_what_is_asked_for(checkpoints, fold, tmp_path):
    part, base = read_part(fold), checkpoints.base("llama")
    assert find_base(None, part) == find_base(str(base), part) == Base(str(base), base)
    with pytest.raises(ConfigError, match=r"nowhere'?.*Say with --base where the base model of .*fold is"):
        find_base("./nowhere", part)
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    write_json(narrow / "config.json", {**read_object(base / "config.json"), "hidden_size": 32})
    with pytest.raises(ConfigError, match=r"is not the base model of .*: hidden_size 32 instead of 64"):
        find_base(str(narrow), part)


def test_what_scorer_yaml_says_names_no_path_of_this_machine(fold, tmp_path):
    part = read_part(fold)
    (fold / "scorer.yaml").write_text(yaml.safe_dump({"type": "llama", "model": str(fold.parent)}))
    settings = scorer_settings(part, Base(str(tmp_path / "base"), tmp_path / "base"), tmp_path / "merged")
    assert settings == {"type": "llama", "name": "merged", "model": str(tmp_path / "base"), "adapter": "."}
    (tmp_path / "base").mkdir()
    settings = scorer_settings(part, Base(str(tmp_path / "base"), tmp_path / "base"), tmp_path / "merged")
    assert settings["model"] == "../base"
