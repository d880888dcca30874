"""Models of true widths on a pretended ``cuda:1``."""

import os

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, Gemma2Config, LlamaConfig

from lmsys_ensemble.compute.flex import FlexAttention
from lmsys_ensemble.modeling import forward as forward_module
from lmsys_ensemble.modeling.forward import ForwardPass, prepare_head
from lmsys_ensemble.modeling.recipe import HeadRecipe
from tests.gpu_path.pretend import pretend_gpus

CAPABILITY = tuple(int(part) for part in os.environ["LMSYS_ENSEMBLE_PRETENDED_CAPABILITY"].split("."))
DEVICE = "cuda:1"
FREE_BYTES = (15 if CAPABILITY < (8, 0) else 40) * 2**30
N_LAYERS = 3
"""Both kinds of Gemma 2's, and a last one that is trimmed."""


def configs():
    """Return the shapes of Gemma-2-9B and Llama-3-8B, with few layers."""
    grouped = {"intermediate_size": 14336, "num_hidden_layers": N_LAYERS, "num_key_value_heads": 8, "num_labels": 3}
    return {
        "gemma": Gemma2Config(
            hidden_size=3584, num_attention_heads=16, head_dim=256, query_pre_attn_scalar=256, pad_token_id=0, **grouped
        ),
        "llama": LlamaConfig(
            vocab_size=128_256, hidden_size=4096, num_attention_heads=32, pad_token_id=0, **grouped
        ),
    }  # fmt: skip


def flex(packed, wanted):
    """FlexAttention with a kernel that only looks at what it is given."""
    return FlexAttention(packed, wanted, run=attend)


def attend(query, key, value, *, score_mod, block_mask, scale, enable_gqa, **options):
    """Return what the compiled kernel would: its inputs must be of one device and format, padded alike."""
    assert query.shape[2] == key.shape[2] == value.shape[2] == block_mask.seq_lengths[0]
    assert query.shape[2] % 128 == 0
    assert {query.dtype, key.dtype, value.dtype} == {query.dtype}
    lists = [part for part in block_mask.as_tuple() if isinstance(part, torch.Tensor)]
    assert {part.device for part in (query, key, value, *lists)} == {query.device}
    place = torch.zeros(1, dtype=torch.int32, device=query.device)
    assert block_mask.mask_mod(place, place, place, place).dtype == torch.bool
    if score_mod is not None:
        assert score_mod(query[0, 0, :1, 0].float(), place, place, place, place).dtype == torch.float32
    torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)  # the logarithms of the sums
    return torch.empty_like(query)


@pytest.fixture
def watch():
    with pretend_gpus(os.environ["LMSYS_ENSEMBLE_PRETENDED_GUARD"], CAPABILITY, FREE_BYTES) as seen:
        yield seen


@pytest.fixture
def make_forward(watch, monkeypatch):
    """Return a function that puts a model on the device, in the format that suits it."""
    monkeypatch.setattr(forward_module, "find_spec", lambda name: name)  # as where Triton is installed

    def make(name, pooling="last_token", attention=None):
        dtype = torch.float16 if CAPABILITY < (8, 0) else torch.bfloat16
        with torch.device(DEVICE):
            model = AutoModelForSequenceClassification.from_config(configs()[name], dtype=dtype)
        model.eval().requires_grad_(False)
        prepare_head(model, HeadRecipe(pooling=pooling), 3)
        forward = ForwardPass(model, pooling, 0)
        if forward.attention is FlexAttention:
            forward.attention = flex
        if attention is not None:
            forward.attention = attention
        watch.start()
        return forward

    return make


def draw_rows(n_tokens, shared=0, longest=2048):
    """Return ids and fields of rows of up to so many tokens together; all begin with the same `shared` tokens."""
    generator = np.random.default_rng(0)
    beginning = generator.integers(5, 1000, shared).astype(np.int32)
    ids, fields, left = [], [], n_tokens
    while left > shared + 2:
        length = int(min(left, np.clip(generator.lognormal(6.7, 0.75), shared + 2, longest)))
        ids.append(np.concatenate([beginning, generator.integers(5, 1000, length - shared).astype(np.int32)]))
        half = (length - length // 5) // 2
        fields.append(np.repeat([1, 2, 3], [length - 2 * half, half, half]).astype(np.int8))
        left -= length - (shared if len(ids) > 1 else 0)
    return ids, fields
