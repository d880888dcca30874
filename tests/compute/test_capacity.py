import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from lmsys_ensemble.compute.capacity import Shape, read_shape
from tests.tiny import DECODERS, SLIDING_WINDOW, make_config

GEMMA_2_9B = {
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "vocab_size": 256_000,
    "sliding_window": 4096,
}


@pytest.fixture
def gemma(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(GEMMA_2_9B))
    return tmp_path


@pytest.mark.parametrize("architecture", DECODERS)
def test_operations_are_those_that_are_done_but_for_what_a_causal_mask_hides(architecture, tmp_path):
    config = make_config(architecture)
    config.save_pretrained(tmp_path)
    shape = read_shape(tmp_path)
    n_tokens = 100
    model = AutoModel.from_config(config, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.arange(n_tokens)[None] + 3, use_cache=False)
    linear = 2 * shape.weights_per_layer * len(shape.windows) * n_tokens
    scores = 4 * shape.n_heads * shape.head_size * n_tokens**2 * len(shape.windows)
    assert counter.get_total_flops() == pytest.approx(linear + scores, rel=0.01)
    pairs = n_tokens * (n_tokens + 1) / 2
    windowed = sum(min(place + 1, SLIDING_WINDOW) for place in range(n_tokens))
    n_windowed = sum(window is not None for window in shape.windows)
    seen = pairs * (len(shape.windows) - n_windowed) + windowed * n_windowed
    expected = linear + 4 * shape.n_heads * shape.head_size * seen
    assert shape.flops(np.array([n_tokens])) == pytest.approx(expected)


def test_a_gemma_2_9b_costs_what_is_published_of_it(gemma):
    shape = read_shape(gemma)
    assert shape.weights_per_layer * 42 + 256_000 * 3584 == pytest.approx(9.24e9, rel=0.01)
    assert shape.flops(np.array([1000]))[0] / 1000 == pytest.approx(16.9e9, rel=0.02)
    assert shape.weight_bytes("bfloat16") == pytest.approx(18.5e9, rel=0.01)
    assert 6.0e9 < shape.weight_bytes("nf4") < 6.5e9
    assert len(read_shape(gemma, 20).windows) == 20


def test_the_text_part_of_a_model_with_vision_counts(gemma, tmp_path):
    nested = tmp_path / "vision"
    nested.mkdir()
    (nested / "config.json").write_text(json.dumps({"text_config": GEMMA_2_9B, "model_type": "gemma3"}))
    assert read_shape(nested) == read_shape(gemma)


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_folder_that_does_not_state_its_sizes_has_no_shape(tmp_path, content):
    if content:
        (tmp_path / "config.json").write_text(content)
    assert read_shape(tmp_path) is None


def test_rows_shorter_than_the_window_cost_what_they_would_without():
    one, other = (Shape(8, 16, 4, 100, 2, 2, windows) for windows in ((None, None), (50, 50)))
    lengths = np.array([1, 10, 50])
    assert np.array_equal(one.flops(lengths), other.flops(lengths))
    assert one.flops(np.array([51]))[0] > other.flops(np.array([51]))[0]
