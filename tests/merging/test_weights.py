import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.merging.parts import find_base, read_part
from lmsys_ensemble.merging.weights import load_unmerged, merged_tensors, plain_name, rounded_layers, stored_dtype
from tests.merging.test_adapters import make_fold

SCALE = 2  # alpha 8 over rank 4


def test_names_lose_what_peft_puts_into_them():
    assert plain_name("model.layers.0.q_proj.base_layer.weight") == "model.layers.0.q_proj.weight"
    assert plain_name("score.modules_to_save.default.weight") == "score.weight"
    assert plain_name("model.norm.weight") == "model.norm.weight"


def test_every_tensor_is_yielded_once_with_its_update_and_freed(checkpoints, tmp_path):
    base = checkpoints.base("llama")
    part = read_part(make_fold(base, tmp_path / "fold", 1))
    model = load_unmerged(part, find_base(None, part), torch.float32)
    rounded = dict(rounded_layers(model))
    assert set(rounded) >= {"model.layers.0.self_attn.q_proj", "model.layers.3.mlp.down_proj"}
    assert not any("score" in name or "lora" in name for name in rounded)
    tensors = list(merged_tensors(model, torch.bfloat16, None))
    found = dict(tensors)
    assert len(found) == len(tensors)
    stored, head = load_file(base / "model.safetensors"), "base_model.model.score.weight"
    assert set(found) == {*(name for name in stored if name != "lm_head.weight"), "score.weight"}
    assert torch.equal(found["score.weight"], part.adapter.weights[head])
    assert {value.dtype for name, value in found.items() if name != "score.weight"} == {torch.bfloat16}
    name = "model.layers.1.self_attn.v_proj.weight"
    a, b = (part.adapter.weights[f"base_model.model.{name[:-7]}.lora_{which}.weight"] for which in "AB")
    assert torch.equal(found[name], (stored[name] + SCALE * (b @ a)).to(torch.bfloat16))
    assert all(parameter.numel() == 0 for key, parameter in model.named_parameters() if key.endswith("layer.weight"))


def test_the_number_format_of_a_model_is_that_of_most_of_its_bytes(tmp_path):
    wide, narrow = torch.zeros(10), torch.zeros(30, dtype=torch.bfloat16)
    save_file({"a": wide, "b": narrow}, tmp_path / "model.safetensors")
    assert stored_dtype(tmp_path) == "bfloat16"
    save_file({"a": wide.to(torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="holds weights of I8; expected F32, BF16, F16"):
        stored_dtype(tmp_path)
