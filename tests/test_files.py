import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import (
    Settings,
    parse_settings,
    read_mapping,
    sha256_of,
    suggest,
    write_atomically,
    write_json,
)


class Inner(Settings):
    rank: int = 8


class Outer(Settings):
    name: str
    lora: Inner = Inner()


# --- settings -------------------------------------------------------------------------------------------------------


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
        ({"name": "one", "lora": {"rank": "many"}}, "lora.rank: .*valid integer"),
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


# --- reading --------------------------------------------------------------------------------------------------------


def test_yaml_and_json_give_the_same_values(tmp_path):
    values = {"name": "grün", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", values)
    (tmp_path / "a.yaml").write_text("name: grün\nnumbers: [1, 2.5, null, true]\n", encoding="utf-8")
    assert read_mapping(tmp_path / "a.json") == read_mapping(tmp_path / "a.yaml") == values


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.yaml", None, "there is no file"),
        ("a.json", b"{", "cannot be read"),
        ("a.yaml", b"a: [1", "cannot be read"),
        ("a.yaml", b"\xff\xfe\xff", "cannot be read"),
        ("a.yaml", b"!!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named(name, content, words, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_mapping(path)
    assert str(path) in str(caught.value)


# --- writing --------------------------------------------------------------------------------------------------------


@given(content=st.text(st.characters(codec="utf-8"), max_size=50) | st.binary(max_size=50))
def test_what_is_written_is_what_is_read(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "new" / "file"
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [other.name for other in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(fails, tmp_path, monkeypatch):
    path = tmp_path / "submission.csv"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "submission.csv"
    path.write_text("old")
    seen = []
    replace = os.replace

    def look_and_replace(source, target):
        seen.append((path.read_text(), Path(source).read_text()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look_and_replace)
    write_atomically(path, "new")
    assert seen == [("old", "new")]
    assert path.read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    write_atomically(tmp_path / "written", "x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "written")}
    assert len(modes) == 1


def test_json_is_readable_by_people(tmp_path):
    write_json(tmp_path / "a.json", {"name": "grün", "n": 1})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "grün",\n  "n": 1\n}\n'
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "grün", "n": 1}
