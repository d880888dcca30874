"""Where base models come from, and what of a stranger's folder is refused before anything is loaded."""

import huggingface_hub.constants
import pytest

from lmsys_ensemble.bases.sources import locate_base, resolve_base
from lmsys_ensemble.errors import ConfigError, ModelError


def test_a_model_on_the_hub_must_be_pinned():
    with pytest.raises(
        ConfigError,
        match=r"no folder here: 'gemma-2-9b-it'.*google/gemma-2-9b-it would come from there unpinned: state its "
        r"revision \(revision= in Python, revision: in a file\)",
    ):
        resolve_base("gemma-2-9b-it")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("gemma-2-9b-itt", "gemma-2-9b-it"), ("smollm2-135m", "smollm2-135m-instruct"), ("models/../x/y", None)],
)
def test_a_name_that_is_nothing_gets_a_suggestion(name, meant):
    with pytest.raises(ConfigError, match=r"no folder here: .* no bundled model and no name on the Hub") as caught:
        resolve_base(name)
    assert f"did you mean {meant!r}?" in str(caught.value) or meant is None


def test_offline_says_what_is_missing_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"google/gemma-2-9b-it at revision abc123 .*path of a local folder"):
        resolve_base("gemma-2-9b-it", "abc123")


@pytest.mark.parametrize(
    "name", ["models/gemma", "./models/gemma", "/models/gemma", "~/models/gemma", "a/b/c", "models/gemma/", ""]
)
@pytest.mark.parametrize("revision", [None, "abc123"])
def test_a_missing_local_model_is_said_to_be_missing_before_the_hub_is_spoken_of(name, revision, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises((ConfigError, ModelError), match="no folder") as caught:
        resolve_base(name, revision)
    said = str(caught.value)
    assert "Hub" not in said[: said.index("no folder")]


def test_a_file_is_no_base_model(folder):
    with pytest.raises(ConfigError, match=r"config\.json is a file; a base model is a folder"):
        resolve_base(folder / "config.json")


def test_what_has_not_been_fetched_is_located_nowhere_without_the_network(monkeypatch, tmp_path, folder):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(tmp_path / "cache"))
    assert locate_base("google/gemma-2-9b-it", "abc123") is None
    assert locate_base("bundled:gemma-3-270m") is None
    assert locate_base(folder) == folder
    with pytest.raises(ConfigError, match=r"no bundled model 'gemma-3-271m' \(did you mean"):
        locate_base("bundled:gemma-3-271m")
