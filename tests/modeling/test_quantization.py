from dataclasses import replace

import bitsandbytes
import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig

from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling import quantization as quantization_module
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.probabilities import softmax
from tests.tiny import encode, make_battles, make_recipe, plain_logits, plain_model, save_adapter, save_classifier

SPREAD = 0.05
LINEAR = {"nf4": Linear4bit, "int8": Linear8bitLt}
BYTES_PER_WEIGHT = {"nf4": 0.5, "int8": 1}
FARTHEST = {"nf4": 0.1, "int8": 0.015}
"""Largest difference of a probability from float32's, for tiny models whose weights are spread as real ones' are."""


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Return a function that makes a checkpoint of weights that do not amplify rounding, with or without an adapter."""
    folder = tmp_path_factory.mktemp("calm")

    def make(architecture):
        if not (folder / architecture).exists():
            save_classifier(architecture, folder / architecture, initializer_range=SPREAD)
            save_adapter(folder / architecture, folder / architecture / "adapter", spread=SPREAD)
        return folder / architecture, folder / architecture / "adapter"

    return make


@pytest.fixture(scope="module")
def encoded():
    return encode(make_battles(8))


def linear_layers(forward):
    return {
        name: module for name, module in forward.model.base_model.named_modules() if isinstance(module, torch.nn.Linear)
    }


def parameter_bytes(model):
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "modernbert"])
def test_every_linear_layer_is_quantised_but_the_head(calm, encoded, architecture, quantization):
    base, _ = calm(architecture)
    full = assemble(base, make_recipe(), ComputeSettings(device="cpu"), adapter=None)
    small = assemble(base, make_recipe(), ComputeSettings(device="cpu", quantization=quantization), adapter=None)
    layers = linear_layers(small)
    assert layers.keys() == linear_layers(full).keys()
    assert {type(module) for module in layers.values()} == {LINEAR[quantization]}
    saved = 0
    for name, module in layers.items():
        n_weights = linear_layers(full)[name].weight.numel()
        assert module.weight.numel() * module.weight.element_size() == BYTES_PER_WEIGHT[quantization] * n_weights
        saved += (4 - BYTES_PER_WEIGHT[quantization]) * n_weights
    assert parameter_bytes(full.model) - parameter_bytes(small.model) >= 0.98 * saved

    head = getattr(small.model, "score", None) or small.model.classifier
    assert type(head) is torch.nn.Linear
    name = next(name for name, module in small.model.named_modules() if module is head)
    assert torch.equal(head.weight, load_file(base / "model.safetensors")[f"{name}.weight"])

    exact, rounded = (softmax(forward.score(encoded, 700)) for forward in (full, small))
    assert 1e-4 < np.abs(rounded - exact).max() < FARTHEST[quantization]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_logits_are_those_of_plain_transformers_within_the_rounding_of_activations(
    checkpoints, encoded, quantization
):
    """Activations are rounded to bfloat16 or int8, so the last digit of an input can move a logit by hundredths."""
    base = checkpoints.classifier("llama")
    options = {
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32},
        "int8": {"load_in_8bit": True},
    }[quantization]
    config = BitsAndBytesConfig(**options, llm_int8_skip_modules=["score"])
    plain = plain_model(base, quantization_config=config, device_map={"": "cpu"}, dtype=torch.float32)
    forward = assemble(base, make_recipe(), ComputeSettings(device="cpu", quantization=quantization), adapter=None)
    expected = plain_logits(plain, encoded.ids)
    rounding = np.abs(plain_logits(plain, encoded.ids, rows_at_once=5) - expected).max()
    with torch.no_grad():
        embedding = plain.get_input_embeddings().weight
        torch.manual_seed(0)
        embedding *= 1 + 1e-6 * torch.randn_like(embedding)
    rounding = max(rounding, np.abs(plain_logits(plain, encoded.ids) - expected).max())
    assert rounding < 0.1 * np.ptp(expected)
    for tokens_per_batch in (1, 10**6):
        np.testing.assert_allclose(forward.score(encoded, tokens_per_batch), expected, rtol=0, atol=3 * rounding)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("architecture", ["llama", "modernbert"])
def test_an_adapter_stays_apart_from_a_quantised_base_with_all_its_digits(calm, encoded, architecture, quantization):
    base, adapter = calm(architecture)
    full = assemble(base, make_recipe(), ComputeSettings(device="cpu", merge=False), adapter=adapter)
    small = assemble(base, make_recipe(), ComputeSettings(device="cpu", quantization=quantization), adapter=adapter)
    weights = {
        name: tensor
        for name, tensor in full.model.named_parameters()
        if "lora_" in name or ".modules_to_save.default.weight" in name
    }
    assert any(isinstance(module, LoraLayer) for module in small.model.modules())
    found = dict(small.model.named_parameters())
    assert len(weights) > 1
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    exact, rounded = (softmax(forward.score(encoded, 700)) for forward in (full, small))
    assert 1e-4 < np.abs(rounded - exact).max() < FARTHEST[quantization]


def test_merging_into_a_quantised_base_is_refused(checkpoints):
    with pytest.raises(ModelError, match="merge=True on a quantised base"):
        assemble(
            checkpoints.base("llama"),
            make_recipe(),
            ComputeSettings(device="cpu", quantization="nf4", merge=True),
            adapter=checkpoints.adapter("llama"),
        )


@pytest.mark.parametrize("with_adapter", [False, True])
def test_unpacked_weights_are_plain_layers_that_give_the_same(calm, encoded, with_adapter):
    base, trained = calm("llama")
    adapter, settings = trained if with_adapter else None, ComputeSettings("cpu", quantization="nf4")
    packed = assemble(base, make_recipe(), settings, adapter=adapter)
    unpacked = assemble(base, make_recipe(), replace(settings, unpack=True), adapter=adapter)
    kept = {name: layer for name, layer in linear_layers(packed).items() if isinstance(layer, Linear4bit)}
    assert not any(isinstance(layer, Linear4bit | LoraLayer) for layer in unpacked.model.modules()), "LoRA is merged"
    for name, layer in kept.items() if not with_adapter else ():
        stands_for = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        assert torch.equal(unpacked.model.base_model.get_submodule(name).weight, stands_for.float())
    differences = softmax(unpacked.score(encoded)) - softmax(packed.score(encoded))
    assert np.abs(differences).max() < FARTHEST["int8"]


@pytest.mark.parametrize("room", [True, False])
def test_weights_are_unpacked_where_a_gpu_has_room(calm, monkeypatch, room):
    base, _ = calm("llama")
    model = assemble(base, make_recipe(), ComputeSettings(device="cpu", quantization="nf4"), adapter=None).model
    n_weights = sum(
        layer.weight.quant_state.shape.numel() for layer in model.modules() if isinstance(layer, Linear4bit)
    )
    free = quantization_module.ROOM_TO_COMPUTE + 2 * n_weights - (not room)
    monkeypatch.setattr(quantization_module, "free_bytes", lambda device: free)
    assert quantization_module.has_room_unpacked(model, torch.float16, "cuda:0") == room
    assert not quantization_module.has_room_unpacked(model, torch.float16, "cpu")
