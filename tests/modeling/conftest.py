import json
import shutil

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.tiny import (
    BOS,
    DECODERS,
    EOS,
    make_config,
    make_tokenizer,
)


def make_model(architecture, **changes):
    torch.manual_seed(DECODERS.index(architecture))
    config = make_config(architecture, num_labels=3, **changes)
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()


@pytest.fixture
def folder(checkpoints, tmp_path):
    """Return a copy of a classifier, to be damaged."""
    return shutil.copytree(checkpoints.classifier("llama"), tmp_path / "model")


@pytest.fixture(scope="module")
def models():
    return {architecture: make_model(architecture) for architecture in DECODERS}


def interleaved(weight, n_heads):
    """Order the rows of a query or key projection as llama.cpp does for its rotary embedding."""
    size = weight.shape[0] // n_heads // 2
    return weight.reshape(n_heads, 2, size, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, base):
    """Write a tiny Llama with its tokenizer as llama.cpp's converter does."""
    model = AutoModelForCausalLM.from_pretrained(base)
    config, weights = model.config, {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    content = json.loads(make_tokenizer().backend_tokenizer.to_str())["model"]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(content["vocab"], key=content["vocab"].get))
    writer.add_token_types([3] * 3 + [1] * (len(content["vocab"]) - 3))
    writer.add_token_merges([" ".join(pair) for pair in content["merges"]])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    for layer in range(config.num_hidden_layers):
        for theirs, short in names.items():
            weight = weights[f"model.layers.{layer}.{theirs}.weight"]
            ordered = interleaved(weight, heads[short]) if short in heads else weight
            writer.add_tensor(f"blk.{layer}.{short}.weight", np.ascontiguousarray(ordered))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
