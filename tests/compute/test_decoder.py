import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, MistralConfig, Qwen2Config, Qwen3Config

from lmsys_ensemble.compute.decoder import can_pack
from lmsys_ensemble.modeling.forward import ForwardPass
from tests.modeling.conftest import make_model
from tests.tiny import DECODERS, PAD, SLIDING_WINDOW, encode, make_battles, make_config, plain_logits

TOLERANCE = {"atol": 1e-4, "rtol": 0}


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(sliding_window=SLIDING_WINDOW),
        Qwen2Config(use_sliding_window=True, sliding_window=SLIDING_WINDOW, max_window_layers=1),
        Qwen3Config(),
    ],
    ids=lambda config: config.model_type,
)
def test_other_decoders_of_the_same_build_are_packed_too(config):
    shape = make_config("llama").to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    for name in (*names, "initializer_range", "pad_token_id", "max_position_embeddings"):
        setattr(config, name, shape[name])
    config.num_hidden_layers, config.num_labels = 2, 3
    if config.model_type != "mistral":
        config.layer_types = ["full_attention", "sliding_attention" if config.use_sliding_window else "full_attention"]
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    assert can_pack(model.base_model)
    encoded = encode(make_battles(6))
    expected = plain_logits(model, encoded.ids)
    assert np.ptp(expected, axis=0).min() > 0.05
    np.testing.assert_allclose(ForwardPass(model, "last_token", PAD).score(encoded, 300), expected, **TOLERANCE)


def test_positions_that_depend_on_the_longest_row_of_a_batch_are_left_to_transformers(caplog):
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    model = make_model("llama", rope_parameters=rope)
    assert not can_pack(model.base_model)
    with caplog.at_level(logging.INFO, "lmsys_ensemble"):
        forward = ForwardPass(model, "last_token", PAD)
    assert "runs padded" in caplog.text
    encoded = encode(make_battles(4))
    np.testing.assert_allclose(forward.score(encoded, 1), plain_logits(model, encoded.ids), **TOLERANCE)


@pytest.mark.parametrize("architecture", DECODERS)
def test_in_bfloat16_on_a_cpu_sums_stay_in_float32(architecture):
    exact = plain_logits(make_model(architecture, initializer_range=0.05), encode(make_battles(12)).ids)
    half = make_model(architecture, initializer_range=0.05).bfloat16()
    added, multiplied = set(), set()
    for layer in half.base_model.layers:
        layer.input_layernorm.register_forward_pre_hook(lambda _, given: added.add(given[0].dtype))
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, given: multiplied.add(given[0].dtype))
    logits = ForwardPass(half, "last_token", PAD).score(encode(make_battles(12)), 500)
    assert (added, multiplied) == ({torch.float32}, {torch.bfloat16})
    np.testing.assert_allclose(logits, exact, rtol=0, atol=0.03)
