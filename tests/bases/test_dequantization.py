import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lmsys_ensemble.bases import dequantization
from lmsys_ensemble.bases.dequantization import convert_by_tensor
from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.forward import ForwardPass
from lmsys_ensemble.modeling.loading import load_tokenizer
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.tensorfiles import read_header
from lmsys_ensemble.modeling.tokenization import make_encoder
from tests.modeling.conftest import QwenFile
from tests.tiny import make_battles, make_recipe, plain_logits, plain_model, save_adapter


@pytest.mark.parametrize("tied", [False, True], ids=["output matrix", "tied"])
def test_a_quantised_file_becomes_a_folder_of_shards_with_the_same_logits(tied, tmp_path, monkeypatch):
    monkeypatch.setattr(dequantization, "SHARD_BYTES", 300_000)
    monkeypatch.setattr(dequantization, "_WEIGHTS_AT_ONCE", 5_000)  # 19 rows of 256: the last block is not whole
    file, folder = QwenFile(tmp_path / "tiny.gguf", tied=tied), tmp_path / "made"
    convert_by_tensor(file.path, folder)
    shards = sorted(folder.glob("model-*-of-*.safetensors"))
    assert len(shards) > 3
    held = {name: entry for path in shards for name, entry in read_header(path).items()}
    assert {entry.dtype for entry in held.values()} == {"BF16"}
    assert ("lm_head.weight" in held) != tied
    config = json.loads((folder / "config.json").read_text())
    assert (config["dtype"], config["rms_norm_eps"], config["pad_token_id"]) == ("bfloat16", 1e-6, file.n_words)
    model, ids = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), torch.arange(60)[None]
    expected = file.plain_model()(ids).logits
    assert torch.equal(model(ids).logits, expected)
    assert expected.std() > 0.1


def test_a_converted_model_is_a_base_for_classifiers(tmp_path):
    base = tmp_path / "base"
    convert_by_tensor(QwenFile(tmp_path / "tiny.gguf").path, base)
    adapter = save_adapter(base, tmp_path / "adapter", spread=0.05)
    pad_token_id = load_tokenizer(base).pad_token_id
    recipe = make_recipe(special_tokens={"bos": False, "pad_token_id": pad_token_id})
    encoded = make_encoder(base, recipe).encode(make_battles(5))
    expected = plain_logits(
        plain_model(base, adapter=adapter, pad_token_id=pad_token_id, dtype=torch.float32), encoded.ids
    )
    forward = assemble(base, recipe, ComputeSettings(device="cpu", merge=False), adapter=adapter)
    assert forward.layout.startswith("packed")
    np.testing.assert_allclose(forward.score(encoded, 300), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.05
    plain = plain_model(base, pad_token_id=pad_token_id, dtype=torch.float32)
    bare = ForwardPass(plain, "last_token", pad_token_id)
    np.testing.assert_allclose(bare.score(encoded, 300), plain_logits(plain, encoded.ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"leave_out": ("blk.1.attn_k.bias",)}, r"blk\.1\.attn_k\.bias is missing \(model\.layers\.1\.self_attn\.k_"),
        ({"architecture": "qwen3"}, "architecture 'qwen3'; qwen2 is converted"),
        ({"split": "llama-bpe"}, "kind 'gpt2' with the pre-tokeniser 'llama-bpe'; known are gpt2 with qwen2"),
    ],
)
def test_a_file_that_does_not_hold_what_is_needed_is_refused(changes, words, tmp_path):
    with pytest.raises(ModelError, match=words):
        convert_by_tensor(QwenFile(tmp_path / "tiny.gguf", **changes).path, tmp_path / "made")
