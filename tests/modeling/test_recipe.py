import json

import pytest

from lmsys_ensemble.errors import ConfigError, IntegrityError
from lmsys_ensemble.modeling.recipe import check_contradictions, read_recipe, write_recipe
from tests.tiny import make_recipe


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    return tmp_path


def rewrite(folder, **changes):
    path = folder / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_recipe_comes_back_as_it_was_written(folder):
    recipe = make_recipe(
        truncation="tail", head={"pooling": "response_spans", "layers": 3}, special_tokens={"pad_token_id": 2}
    )
    written = write_recipe(folder, recipe, ("adapter_model.safetensors",))
    assert read_recipe(folder) == written
    assert written.model_copy(update={"files": {}}) == recipe


def test_a_folder_without_a_recipe_has_none(tmp_path):
    assert read_recipe(tmp_path) is None


def test_an_exchanged_file_is_named(folder):
    write_recipe(folder, make_recipe(), ("adapter_model.safetensors",))
    (folder / "adapter_model.safetensors").write_bytes(b"other weights")
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors is not the file .* Copy the folder again"):
        read_recipe(folder)


def test_a_lost_file_is_named(folder):
    write_recipe(folder, make_recipe(), ("adapter_model.safetensors",))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors is missing"):
        read_recipe(folder)


def test_another_label_order_is_refused_with_both_orders(folder):
    write_recipe(folder, make_recipe())
    rewrite(folder, classes=["tie", "model_a", "model_b"])
    with pytest.raises(ConfigError, match=r"\['model_a', 'model_b', 'tie'\].*got \['tie', 'model_a', 'model_b'\]"):
        read_recipe(folder)


def test_a_misspelt_key_gets_a_suggestion(folder):
    write_recipe(folder, make_recipe())
    rewrite(folder, max_token=512)
    with pytest.raises(ConfigError, match=r"'max_token' \(did you mean 'max_tokens'\?\)"):
        read_recipe(folder)


def test_a_recipe_of_a_later_release_says_so(folder):
    write_recipe(folder, make_recipe())
    rewrite(folder, schema_version=2, new_key=True)
    with pytest.raises(ConfigError, match="schema version 2; this release reads up to 1"):
        read_recipe(folder)


def test_every_contradiction_is_named_with_both_values():
    recipe = make_recipe(special_tokens={"pad_token_id": 0})
    asked = {
        "template.name": "kaggle-llama",
        "max_tokens": 512,
        "truncation": "tail",
        "special_tokens.bos": False,
        "special_tokens.eos": False,
        "special_tokens.pad_token_id": 2,
        "soft_capping": False,
        "base_model.revision": "abc",
    }
    with pytest.raises(ConfigError) as caught:
        check_contradictions(recipe, asked, "adapters/llama")
    for said in (
        "adapters/llama",
        "template.name is 'kaggle-llama', trained with 'turns'",
        f"max_tokens is 512, trained with {recipe.max_tokens}",
        "truncation is 'tail', trained with 'balanced'",
        "special_tokens.bos is False, trained with True",
        "special_tokens.eos is False, trained with True",
        "special_tokens.pad_token_id is 2, trained with 0",
        "soft_capping is False, trained with True",
        "base_model.revision is 'abc', trained with None",
        "Leave them out",
    ):
        assert said in str(caught.value)


def test_settings_left_out_or_equal_contradict_nothing():
    check_contradictions(make_recipe(), {"truncation": None, "template.name": "turns", "soft_capping": True}, "here")


@pytest.mark.parametrize("name", ["/etc/hostname", "../other/x.json", "sub/x.json", "..\\x", ".", "a\0b"])
def test_a_recipe_makes_nobody_read_files_elsewhere(tmp_path, name):
    values = json.loads(make_recipe().model_dump_json())
    (tmp_path / "recipe.json").write_text(json.dumps({**values, "files": {name: "0" * 64}}))
    with pytest.raises(ConfigError, match="vouches for files beside it"):
        read_recipe(tmp_path)
