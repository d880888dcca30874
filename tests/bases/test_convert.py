import json

import torch
from transformers import AutoModel

from lmsys_ensemble.bases.convert import convert_gguf
from lmsys_ensemble.modeling.loading import load_tokenizer
from lmsys_ensemble.modeling.tensorfiles import read_header
from tests.modeling.conftest import write_gguf
from tests.tiny import make_tokenizer


def tokens_of(tokenizer):
    return tokenizer("the quick brown fox in Zürich", add_special_tokens=False)["input_ids"]


def test_a_gguf_file_becomes_the_folder_of_a_model_without_a_head(checkpoints, tmp_path):
    base = checkpoints.base("llama")
    write_gguf(tmp_path / "tiny.gguf", base)
    folder = tmp_path / "made" / "here"
    convert_gguf(tmp_path / "tiny.gguf", folder)
    ours, theirs = (AutoModel.from_pretrained(path).state_dict() for path in (folder, base))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    header = read_header(folder / "model.safetensors")
    assert {entry.dtype for entry in header.values()} == {"F32"}
    assert not [name for name in header if "score" in name]
    config = json.loads((folder / "config.json").read_text())
    assert not {"id2label", "quantization_config", "_name_or_path"} & set(config)
    assert tokens_of(load_tokenizer(folder)) == tokens_of(make_tokenizer())
