import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.blending.stored import read_blender
from lmsys_ensemble.config import read_config
from lmsys_ensemble.documents import MAX_DEPTH, MAX_ENTRIES, MAX_YAML_BYTES, parse_json, parse_yaml
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import read_mapping, read_object
from lmsys_ensemble.modeling.golden import read_golden
from lmsys_ensemble.modeling.recipe import read_recipe

ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Nine lines that mean a billion entries."""

MERGE_BOMB = "a: &a {x: 1}\n" + "\n".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""The same by merge keys, which are copied while the file is read."""

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(plain_values)
def test_what_is_within_the_limits_is_read_as_everybody_reads_it(values):
    assert parse_json(json.dumps(values), "a.json") == values
    text = yaml.safe_dump(values, allow_unicode=True)
    assert parse_yaml(text, "a.yaml") == yaml.safe_load(text)


def test_anchors_aliases_and_merge_keys_of_people_are_read():
    text = "base: &base {device: cpu, dtype: float32}\none: {<<: *base, device: 'cuda:0'}\ntwo: *base\n"
    assert parse_yaml(text, "a.yaml") == yaml.safe_load(text)
    assert parse_yaml("", "a.yaml") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nlora: {r: 8}\nname: b\n", r"the key 'name' twice in one mapping \(lines 1 and 3\)"),
        ("optimizer:\n  epochs: 2\ndata:\n  weights:\n    x: 1\n    'x': 2\n", r"'x' twice .* \(lines 5 and 6\)"),
        ("- {1: a, 0x1: b}\n", "the key '0x1' twice"),
        ("? {a: 1, a: 2}\n: 3\n", "the key 'a' twice"),
    ],
)
def test_a_key_that_stands_twice_is_refused(text, message):
    with pytest.raises(ConfigError, match=rf"a\.yaml has .*{message}"):
        parse_yaml(text, "a.yaml")


def test_one_key_in_several_mappings_is_no_doubled_key():
    text = "one: &one {a: 1}\ntwo: {<<: *one, a: 2}\nthree: {<<: *one, <<: {b: 3}}\nfour: [*one, *one]\n"
    assert parse_yaml(text, "a.yaml") == yaml.safe_load(text)


@pytest.mark.parametrize("bomb", [ALIAS_BOMB, MERGE_BOMB])
def test_an_alias_bomb_is_refused_by_what_it_means(bomb):
    assert len(bomb) < 600
    with pytest.raises(ConfigError, match=r"a\.yaml means .*e\+0[789] entries once its aliases are written out"):
        parse_yaml(bomb, "a.yaml")


def test_an_alias_that_contains_itself_is_refused_with_its_line():
    for text in ("ok: 1\nbad: &a [1, *a]\n", "ok: 1\nbad: &a {deeper: {still: *a}}\n"):
        with pytest.raises(ConfigError, match=r"a\.yaml holds an alias that contains itself in line 2"):
            parse_yaml(text, "a.yaml")


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 900, 200_000])
@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_refused_and_no_stack_overflows(levels, opened, closed):
    text = opened * levels + "1" + closed * levels
    for parse in (parse_json, parse_yaml):
        if len(text) < MAX_YAML_BYTES:
            with pytest.raises(ConfigError, match=f"deep is nested more than {MAX_DEPTH} levels deep"):
                parse(text, "deep")
    allowed = opened * MAX_DEPTH + "1" + closed * MAX_DEPTH
    assert parse_json(allowed, "a") == parse_yaml(allowed.replace(":", ": "), "a")


def test_deep_nesting_by_aliases_is_seen_too():
    chain = "\n".join(f"k{i}: &k{i} [{f'*k{i - 1}' if i else 1}]" for i in range(MAX_DEPTH + 10))
    with pytest.raises(ConfigError, match="levels deep"):
        parse_yaml(chain, "a.yaml")


def test_a_large_yaml_file_is_refused_before_it_is_parsed():
    with pytest.raises(ConfigError, match="a YAML file may have 1,048,576"):
        parse_yaml("#" * (MAX_YAML_BYTES + 1), "a.yaml")
    with pytest.raises(ConfigError, match="entries"):
        parse_yaml(f"[{','.join('1' * (MAX_ENTRIES + 1))}]", "a.yaml")


@pytest.mark.parametrize("text", ["{", "[1, 2", "a: b: c", "\x00", "!!python/object:os.system {}", "1" * 5000, "&a"])
def test_what_is_neither_is_an_error_that_names_the_file(text):
    for parse in (parse_json, parse_yaml):
        try:
            parse(text, "it.yaml")
        except ConfigError as error:
            assert str(error).startswith("it.yaml cannot be read as")  # noqa: PT017 - not every text is wrong in both
        else:
            assert parse is parse_yaml
            assert text == "&a"


def test_names_with_values_are_told_from_everything_else(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"a\.json holds list, expected names with their values"):
        read_object(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_object(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize("levels", [900, 100_000])
def test_every_reader_of_settings_refuses_deep_nesting(tmp_path, levels):
    deep = "[" * levels + "]" * levels
    readers = {
        "ensemble.yaml": read_config,
        "ensemble.json": read_config,
        "blender.json": read_blender,
        "recipe.json": lambda path: read_recipe(path.parent),
        "golden.json": lambda path: read_golden(path.parent),
        "any.json": read_mapping,
    }
    for name, read in readers.items():
        (tmp_path / name).write_text(deep)
        with pytest.raises(ConfigError, match=f"{name}.* is nested more than"):
            read(tmp_path / name)
