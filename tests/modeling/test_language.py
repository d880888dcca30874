import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling.adapter_config import read_lora_config
from lmsys_ensemble.modeling.adapters import shapes_of
from lmsys_ensemble.modeling.choices import assemble_choices, load_settings
from lmsys_ensemble.modeling.language import (
    language_adapter_faults,
    language_base_faults,
    language_skeleton,
    load_language_model,
)
from lmsys_ensemble.modeling.settings import ComputeSettings
from tests.language_models import save_language_adapter, save_language_model

PLAIN = load_settings(ComputeSettings(device="cpu", dtype="float32"))
LORA_A = "base_model.model.model.layers.2.self_attn.v_proj.lora_A.weight"


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return save_language_model("llama untied", tmp_path_factory.mktemp("language") / "base")


@pytest.fixture(scope="module")
def trained(untied, tmp_path_factory):
    return save_language_adapter(untied, tmp_path_factory.mktemp("language") / "adapter")


def edit_weights(folder, change):
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def raises(base, message):
    """Tell that checking and loading a base say the same."""
    (fault,) = language_base_faults(base, PLAIN)
    assert message in fault
    with pytest.raises(ModelError) as caught:
        load_language_model(base, PLAIN)
    assert message in str(caught.value)


def test_what_is_right_has_no_faults(untied, trained):
    assert list(language_base_faults(untied, PLAIN)) == []
    assert list(language_adapter_faults(trained, untied, PLAIN)) == []


def test_a_skeleton_has_the_tensors_that_peft_saves_and_no_memory(untied, trained):
    tensors = language_skeleton(untied, PLAIN, read_lora_config(trained))
    assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
    with safe_open(trained / "adapter_model.safetensors", "pt") as file:
        assert shapes_of(tensors) == {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


def test_a_classifier_is_no_language_model(checkpoints):
    raises(checkpoints.classifier("llama"), "it is a classifier, with a head of its own")


def test_a_model_without_its_output_matrix_is_no_language_model(untied, tmp_path):
    base = shutil.copytree(untied, tmp_path / "base")
    edit_weights(base, lambda weights: weights.pop("lm_head.weight"))
    raises(base, "its embeddings are not tied to one")


def test_a_missing_layer_is_named(untied, tmp_path):
    base = shutil.copytree(untied, tmp_path / "base")
    edit_weights(base, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelError, match=r"lacks 1 weights: model\.layers\.1\.mlp\.up_proj\.weight$"):
        load_language_model(base, PLAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(LORA_A), f"1 missing: {LORA_A}"),
        (
            lambda weights: weights.update({"base_model.model.mine": torch.ones(2)}),
            "1 unexpected: base_model.model.mine",
        ),
        (lambda weights: weights.update({LORA_A: torch.ones(4, 65)}), "1 of another shape"),
    ],
)
def test_every_key_of_an_adapter_is_accounted_for(untied, trained, tmp_path, change, message):
    adapter = shutil.copytree(trained, tmp_path / "adapter")
    edit_weights(adapter, change)
    (fault,) = language_adapter_faults(adapter, untied, PLAIN)
    assert message in fault
    with pytest.raises(ModelError, match=message.replace(".", r"\.")):
        assemble_choices(untied, ComputeSettings(device="cpu"), [5, 6], adapter=adapter)


def test_an_adapter_that_is_not_finite_is_refused(untied, trained, tmp_path):
    adapter = shutil.copytree(trained, tmp_path / "adapter")
    edit_weights(adapter, lambda weights: weights[LORA_A].fill_(torch.nan))
    with pytest.raises(ModelError, match="1 not finite"):
        assemble_choices(untied, ComputeSettings(device="cpu"), [5, 6], adapter=adapter)


def test_a_classifiers_adapter_is_told_by_its_head(checkpoints, untied):
    adapter = checkpoints.adapter("llama")
    (fault,) = language_adapter_faults(adapter, untied, PLAIN)
    assert "is a classifier's adapter, with a head (base_model.model.score.weight)" in fault
    with pytest.raises(ModelError, match="use ClassifierScorer, or give an adapter that was trained with task_type"):
        assemble_choices(untied, ComputeSettings(device="cpu"), [5, 6], adapter=adapter)


def test_a_configuration_of_no_language_model_is_named(untied, tmp_path):
    base = shutil.copytree(untied, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "hidden_act": "no such thing"}))
    (fault,) = language_base_faults(base, PLAIN)
    assert "describes no causal language model that can be built" in fault
