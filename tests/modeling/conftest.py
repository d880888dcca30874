import hashlib
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Qwen2Config

from lmsys_ensemble.bases.catalogue import Wheel
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


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder, distribution, member, data):
    """Write a wheel that pip accepts, with one file in it."""
    path = folder / f"{distribution.replace('-', '_')}-1.0.0-py3-none-any.whl"
    info = f"{distribution.replace('-', '_')}-1.0.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{member},,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return Wheel(distribution, "1.0.0", sha256(path.read_bytes()), member)


LLAMA_CPP_NAMES = {
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}
QUANTIZED = GGMLQuantizationType
STORED = {"attn_v": QUANTIZED.Q8_0, "ffn_gate": QUANTIZED.Q5_0, "ffn_down": QUANTIZED.Q6_K, "output": QUANTIZED.Q6_K}
"""Kinds of quantisation as a Q4_K_M file mixes them; Q4_K for all others."""


class QwenFile:
    """A GGUF file of a tiny Qwen2 model, quantised as the real ones are, and what it must become."""

    def __init__(self, path, *, tied=False, leave_out=(), architecture="qwen2", split="qwen2"):
        self.path, self.architecture, self.split = path, architecture, split
        content = json.loads(make_tokenizer().backend_tokenizer.to_str())["model"]
        words = sorted(content["vocab"], key=content["vocab"].get)[3:]  # without <pad>, <bos> and <eos>
        control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        self.n_words, self.words = len(words), {word: number for number, word in enumerate(words)}
        self.merges = [tuple(pair) for pair in content["merges"]]
        self.tokens = [*words, *control, "<tool_call>"]
        self.kinds = [1] * len(words) + [3] * 3 + [4]
        self.n_tokens = len(self.tokens)
        self.tokens += [f"[PAD{number}]" for number in range(self.n_tokens, 416)]
        self.kinds += [5] * (416 - self.n_tokens)
        self.config = Qwen2Config(
            vocab_size=416, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-6, tie_word_embeddings=tied,
            rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
            bos_token_id=self.n_words, eos_token_id=self.n_words + 2, pad_token_id=self.n_words,
        )  # fmt: skip
        self.weights = {}
        self._write(leave_out)

    def plain_model(self):
        """Return the model of the dequantised weights, rounded to bfloat16, in float32."""
        model = AutoModelForCausalLM.from_config(self.config, dtype=torch.float32)
        model.load_state_dict(self.weights, strict=not self.config.tie_word_embeddings)
        return model.eval()

    def _write(self, leave_out):
        writer, config = GGUFWriter(self.path, self.architecture), self.config
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.split)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.kinds)
        writer.add_token_merges([" ".join(pair) for pair in self.merges])
        writer.add_bos_token_id(config.bos_token_id)
        writer.add_eos_token_id(config.eos_token_id)
        writer.add_pad_token_id(config.pad_token_id)
        writer.add_add_bos_token(False)
        writer.add_chat_template("{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}")
        generator = np.random.default_rng(0)
        shapes = {key: value.shape for key, value in AutoModelForCausalLM.from_config(config).state_dict().items()}
        if config.tie_word_embeddings:
            del shapes["lm_head.weight"]
        for key, shape in shapes.items():
            name = self._name(key)
            if name in leave_out:
                continue
            data, kind = _quantized(name, tuple(shape), generator)
            writer.add_tensor(name, data, raw_dtype=kind)
            whole = dequantize(data, kind).reshape(shape)
            self.weights[key] = torch.from_numpy(np.array(whole)).bfloat16().float()
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    @staticmethod
    def _name(key):
        whole = {
            "model.embed_tokens.weight": "token_embd.weight",
            "lm_head.weight": "output.weight",
            "model.norm.weight": "output_norm.weight",
        }
        if key in whole:
            return whole[key]
        layer, _, name = key.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{LLAMA_CPP_NAMES[name]}"


def _quantized(name, shape, generator):
    """Return random weights as bytes of a kind of quantisation; the package quantises only to the simple ones."""
    if len(shape) == 1:
        centre = 0 if "bias" in name else 1
        return generator.normal(centre, 0.1, shape).astype(np.float32), QUANTIZED.F32
    kind = STORED.get(name.split(".")[-2], QUANTIZED.Q4_K)
    if kind in (QUANTIZED.Q8_0, QUANTIZED.Q5_0):
        return quantize(generator.normal(0, 0.06, shape).astype(np.float32), kind), kind
    n_bytes = {QUANTIZED.Q4_K: 144, QUANTIZED.Q6_K: 210}[kind]  # of a block of 256 weights, with its scales in float16
    blocks = generator.integers(0, 256, (shape[0], shape[1] // 256, n_bytes), dtype=np.uint8)
    if kind == QUANTIZED.Q4_K:
        blocks[..., :4] = np.array([3e-4, 22e-4], dtype=np.float16).view(np.uint8)  # of weights, and of the minimum
    else:
        blocks[..., -2:] = np.array([5e-5], dtype=np.float16).view(np.uint8)
    return blocks.reshape(shape[0], -1), kind
