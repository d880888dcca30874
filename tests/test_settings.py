from collections.abc import Mapping
from typing import ClassVar

import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.settings import Settings, parse_settings, suggest


class Inner(Settings):
    rank: int = 8


class Outer(Settings):
    called_elsewhere: ClassVar[Mapping[str, str]] = {"title": "name", "lora_r": "lora.rank"}

    name: str
    lora: Inner = Inner()


def test_settings_are_validated_and_cannot_be_changed():
    settings = parse_settings(Outer, {"name": "one", "lora": {"rank": 4}}, "a.yaml")
    assert (settings.name, settings.lora.rank) == ("one", 4)
    with pytest.raises(ValueError, match="frozen"):
        settings.name = "two"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "one", "loar": {}}, r"unknown key 'loar' \(did you mean 'lora'\?\)"),
        ({"name": "one", "lora": {"rnk": 4}}, r"unknown key 'lora.rnk' \(did you mean 'rank'\?\)"),
        ({"name": "one", "lora": {"xyz": 4}}, r"unknown key 'lora.xyz' \(known: rank\)"),
        ({"name": "one", "lora": {"rank": "many"}}, "lora.rank: .*valid integer.*, got 'many'"),
        ({"name": "one", "lora": {"rank": [1]}}, r"lora.rank: Input should be a valid integer$"),
        ({"name": "one", "lora_r": 4}, r"unknown key 'lora_r' \(here: lora\.rank\)"),
        ({"name": "one", "rank": 4}, r"unknown key 'rank' \(did you mean lora\.rank\?\)"),
        ({}, "name: Field required"),
        ({1: 2, "name": "one"}, "Keys should be strings"),
        (["name"], "expected a mapping of settings, got list"),
        (None, "got NoneType"),
    ],
)
def test_wrong_settings_are_named_with_their_file(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        parse_settings(Outer, values, "a.yaml")
    assert str(caught.value).startswith("a.yaml: ")


def test_all_wrong_settings_are_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_settings(Outer, {"lora": {"rank": "x"}, "nmae": "one"}, "a.yaml")
    for key in ("lora.rank", "nmae", "name"):
        assert key in str(caught.value)


def test_a_suggestion_is_the_closest_name_or_all_of_them():
    assert suggest("gema", ["llama", "gemma"]) == " (did you mean 'gemma'?)"
    assert suggest("xyz", ["llama", "gemma"]) == " (known: gemma, llama)"
    assert suggest("xyz", []) == ""
