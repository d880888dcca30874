"""What of a stranger's ``adapter_config.json`` is refused before PEFT acts on it."""

import json
import shutil

import pytest
from peft import get_peft_model

from lmsys_ensemble.errors import EnsembleError, IntegrityError, ModelError
from lmsys_ensemble.modeling import adapters, patterns
from lmsys_ensemble.modeling.adapters import read_adapter
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.importing import LoraShape, import_checkpoint
from lmsys_ensemble.modeling.settings import ComputeSettings
from tests.tiny import make_recipe

FOR_EVER = r"(.*[a-z._])*!"


@pytest.fixture
def folder(checkpoints, tmp_path):
    """Return a copy of an adapter, to be changed."""
    return shutil.copytree(checkpoints.adapter("llama"), tmp_path / "adapter")


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def ways(checkpoints, folder, tmp_path):
    """Return the ways on which an adapter's configuration is read."""
    base = checkpoints.base("llama")
    return (
        lambda: assemble(base, make_recipe(), ComputeSettings(device="cpu"), adapter=folder),
        lambda: import_checkpoint(folder, tmp_path / "out", base, make_recipe(), LoraShape(), golden=False),
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r": 50_000_000}, "states a LoRA rank of 50,000,000, but its largest LoRA matrix has rank 4"),
        ({"rank_pattern": {"q_proj": 50_000_000}}, "states a LoRA rank of 50,000,000"),
        ({"r": 0}, "r must be a whole number above 0, got 0"),
        ({"r": "many"}, "r must be a whole number above 0, got many"),
        ({"r": True}, "r must be a whole number"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number above 0, got nan"),
        ({"lora_alpha": float("inf")}, "lora_alpha must be a number above 0, got inf"),
        ({"alpha_pattern": {"q_proj": -1}}, r"alpha_pattern\['q_proj'\] must be a number above 0, got -1"),
        ({"rank_pattern": [4]}, "rank_pattern must be names with their values, got list"),
        ({"target_modules": {"q_proj": 1}}, "target_modules must be a text or a list of texts"),
        ({"layers_to_transform": ["one"]}, "layers_to_transform must be a list of whole numbers"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "megatron_config is refused: .* import a module"),
        ({"layer_replication": [[0, 4], [0, 4]]}, "layer_replication is refused"),
        ({"r": -1, "lora_alpha": 0}, "r must be .*; lora_alpha must be"),
        ({"target_modules": "(q_proj"}, "is no regular expression|does not fit"),
        ({"target_modules": "(q_proj)+("}, "is no regular expression"),
        ({"peft_type": "IA3"}, "is a IA3 adapter; only LoRA"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_built(folder, ways, changes, words, monkeypatch):
    edit(folder, **changes)
    monkeypatch.setattr(adapters, "get_peft_model", get_peft_model if "q_proj" in str(changes) else None)
    for look in ways:
        with pytest.raises(ModelError, match=words):
            look()


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": FOR_EVER},
        {"exclude_modules": FOR_EVER},
        {"rank_pattern": {FOR_EVER: 4}},
        {"alpha_pattern": {FOR_EVER: 4}},
        {"modules_to_save": ["score", FOR_EVER]},
        {"layers_to_transform": [0], "layers_pattern": FOR_EVER},
    ],
)
def test_an_expression_that_takes_for_ever_ends_the_load_and_not_the_night(folder, ways, changes, monkeypatch):
    monkeypatch.setattr(patterns, "TIME_LIMIT_S", 1.0)
    monkeypatch.setattr(adapters, "get_peft_model", lambda *_, **__: pytest.fail("PEFT matched it"))
    edit(folder, **changes)
    for look in ways:
        with pytest.raises(ModelError, match=r"adapter_config\.json: the regular expression .* was stopped"):
            look()


@pytest.mark.parametrize("target", [r".*\.(q|v|o)_proj", ["q_proj", "v_proj", "o_proj"]])
def test_expressions_that_end_are_followed(folder, ways, target):
    edit(folder, target_modules=target)
    for look in ways:
        look()


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "{", "", "\x00"])
def test_a_file_that_is_no_configuration_is_named(folder, ways, text):
    (folder / "adapter_config.json").write_text(text)
    for look in ways:
        with pytest.raises(EnsembleError, match=r"adapter_config\.json"):
            look()


def test_weights_that_git_left_as_a_pointer_are_named(folder, ways):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 538090408\n"
    (folder / "adapter_model.safetensors").write_text(pointer)
    for look in (*ways, lambda: read_adapter(folder)):
        with pytest.raises(IntegrityError, match="it is a Git-LFS pointer, not the file itself; run 'git lfs pull'"):
            look()
