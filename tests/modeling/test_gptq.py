"""A model in GPTQ's weights, packed as AutoGPTQ packs them, runs through transformers' quantiser and our layers."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ensemble.files import read_object, write_json
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.settings import ComputeSettings
from tests.tiny import encode, make_battles, make_recipe, save_classifier

GROUP = 64


def as_int32(values):
    return torch.where(values >= 2**31, values - 2**32, values).to(torch.int32).contiguous()


def packed_rows(values, bits):
    """Put several rows of small integers into one row of 32-bit integers."""
    n = 32 // bits
    return as_int32(sum(values[start::n] << (bits * start) for start in range(n)))


def quantise(weight, bits):
    """Return what GPTQ stores of a weight, symmetric and rounded to nearest, and the weight that this stands for."""
    n_out, n_in = weight.shape
    middle = 2 ** (bits - 1)
    groups = weight.reshape(n_out, -1, GROUP)
    scales = (groups.abs().amax(2) / (middle - 0.5)).half().float()
    steps = (groups / scales[:, :, None]).round().clamp(-middle, middle - 1)
    stored = (steps + middle).to(torch.int64).reshape(n_out, n_in).T
    zeros = torch.full((n_out, n_in // GROUP), middle - 1, dtype=torch.int64)  # the format keeps them less one
    tensors = {
        "qweight": packed_rows(stored, bits),
        "qzeros": packed_rows(zeros, bits).T.contiguous(),
        "scales": scales.T.half().contiguous(),
        "g_idx": torch.arange(n_in, dtype=torch.int32) // GROUP,
    }
    return tensors, (steps * scales[:, :, None]).reshape(n_out, n_in)


@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_weights_give_the_logits_of_the_numbers_that_they_stand_for(tmp_path, bits):
    for package in ("gptqmodel", "optimum"):
        pytest.importorskip(package, reason=f"{package} is not installed; GPTQ's weights cannot be loaded without it")
    plain = save_classifier("llama", tmp_path / "plain", initializer_range=0.05)
    stored = save_classifier("llama", tmp_path / "stored", initializer_range=0.05)
    tensors, packed = load_file(plain / "model.safetensors"), {}
    for name, weight in tensors.items():
        if name.endswith("proj.weight"):
            parts, tensors[name] = quantise(weight, bits)
            packed.update({f"{name.removesuffix('.weight')}.{part}": tensor for part, tensor in parts.items()})
        else:
            packed[name] = weight
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    save_file(packed, stored / "model.safetensors", metadata={"format": "pt"})
    entry = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "desc_act": False, "sym": True}
    entry["checkpoint_format"] = "gptq"
    write_json(stored / "config.json", {**read_object(stored / "config.json"), "quantization_config": entry})
    encoded = encode(make_battles(6))
    expected = assemble(plain, make_recipe(), ComputeSettings(device="cpu"), adapter=None).score(encoded)
    forward = assemble(stored, make_recipe(), ComputeSettings(device="cpu", dtype="float32"), adapter=None)
    assert forward.layout.startswith("packed")
    assert type(forward.model.score) is torch.nn.Linear
    np.testing.assert_allclose(forward.score(encoded), expected, rtol=0, atol=5e-3 * np.ptp(expected))
