"""From a GGUF file to a folder of bfloat16 shards, a few rows of a tensor at a time.

`lmsys_ensemble.bases.convert` lets transformers load the whole model in float32, four bytes a weight. Here no more
than a shard or the largest tensor is held, two bytes a weight, whatever the model's size. Rounding to bfloat16 moves a
weight by at most 2^-9 of itself; the 4 to 6 bits that it was stored in have moved it by far more.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH, GGUFReader, ReaderTensor, dequantize, get_tensor_name_map
from transformers import AutoModelForCausalLM, Qwen2Config

from lmsys_ensemble.bases.gguf_tokenizer import TokenizerDescription, write_tokenizer
from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling.building import LOAD_LOCK, quiet_transformers
from lmsys_ensemble.modeling.tensorfiles import save_shards

SHARD_BYTES = 2**28
_WEIGHTS_AT_ONCE = 2**22
"""Rows are dequantised until they have so many weights: 16 MiB in float32."""

_OUTPUT = "output.weight"


def convert_by_tensor(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to bfloat16 and write it as a folder that transformers loads, chat template included.

    The output matrix is kept beside the embeddings where the file has one of its own: llama.cpp stores matrices that
    the model ties in two precisions.

    Parameters
    ----------
    gguf : Path
        File of a Qwen2 model.
    folder : Path
        Made if it is not there.

    Raises
    ------
    ModelError
        If the file is of another architecture, or its tensors are not those that the configuration needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(gguf)
    read = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    del reader  # every token of its vocabulary is an array to it
    config = _read_config(read, tensors)
    write_tokenizer(_describe_tokenizer(read), folder)
    del read
    sources = _match(config, tensors)
    save_shards(_bfloat16_tensors(gguf, sources), folder, SHARD_BYTES)
    values = {**config.to_dict(), "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16"}
    for name in ("_name_or_path", "id2label", "label2id"):
        values.pop(name, None)
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")


def _read_config(read: Mapping[str, Any], tensors: Mapping[str, ReaderTensor]) -> Qwen2Config:
    architecture = read.get("general.architecture")
    if architecture != "qwen2":
        raise ModelError(f"the GGUF file is of the architecture {architecture!r}; qwen2 is converted tensor by tensor")
    # Single precision in the file: 1e-06 has become 9.999999974752427e-07.
    numbers = {name: float(str(np.float32(read[f"qwen2.{name}"]))) for name in (_EPSILON, _BASE)}
    return Qwen2Config(
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        hidden_size=read["qwen2.embedding_length"],
        intermediate_size=read["qwen2.feed_forward_length"],
        num_hidden_layers=read["qwen2.block_count"],
        num_attention_heads=read["qwen2.attention.head_count"],
        num_key_value_heads=read["qwen2.attention.head_count_kv"],
        max_position_embeddings=read["qwen2.context_length"],
        rms_norm_eps=numbers[_EPSILON],
        rope_parameters={"rope_type": "default", "rope_theta": numbers[_BASE]},
        tie_word_embeddings=_OUTPUT not in tensors,
        bos_token_id=read.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=read.get("tokenizer.ggml.eos_token_id"),
        pad_token_id=read.get("tokenizer.ggml.padding_token_id"),
    )


_EPSILON, _BASE = "attention.layer_norm_rms_epsilon", "rope.freq_base"


def _describe_tokenizer(read: Mapping[str, Any]) -> TokenizerDescription:
    return TokenizerDescription(
        model=read["tokenizer.ggml.model"],
        split=read.get("tokenizer.ggml.pre", ""),
        tokens=read["tokenizer.ggml.tokens"],
        kinds=read["tokenizer.ggml.token_type"],
        merges=read["tokenizer.ggml.merges"],
        bos_id=read.get("tokenizer.ggml.bos_token_id"),
        eos_id=read.get("tokenizer.ggml.eos_token_id"),
        pad_id=read.get("tokenizer.ggml.padding_token_id"),
        adds_bos=bool(read.get("tokenizer.ggml.add_bos_token", False)),
        chat_template=read.get("tokenizer.chat_template"),
        max_tokens=read["qwen2.context_length"],
    )


def _match(config: Qwen2Config, tensors: Mapping[str, ReaderTensor]) -> dict[str, ReaderTensor]:
    """Return the file's tensor for every parameter of the model; each is used once, in the shape that is needed."""
    with LOAD_LOCK, quiet_transformers(), torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).state_dict()
    if config.tie_word_embeddings:
        parameters.pop("lm_head.weight", None)
    names = get_tensor_name_map(MODEL_ARCH.QWEN2, config.num_hidden_layers)
    ours = {name: names.get_name(name, try_suffixes=(".weight", ".bias")) for name in parameters}
    faults = [f"{there} is missing ({name})" for name, there in ours.items() if there not in tensors]
    faults += [f"{name} has no place in the model" for name in tensors if name not in ours.values()]
    faults += [
        f"{there} has shape {_shape(tensors[there])}, expected {tuple(parameters[name].shape)}"
        for name, there in ours.items()
        if there in tensors and _shape(tensors[there]) != tuple(parameters[name].shape)
    ]
    if faults:
        raise ModelError(f"the GGUF file does not hold the model that it describes: {'; '.join(faults[:10])}")
    return {name: tensors[str(there)] for name, there in ours.items()}


def _shape(tensor: ReaderTensor) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape))


def _bfloat16_tensors(gguf: Path, sources: Mapping[str, ReaderTensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors by name; read with seeks, since pages of a mapped file would count as memory."""
    with gguf.open("rb") as file:
        for name, source in sources.items():
            shape = _shape(source)
            n_rows = 1 if len(shape) == 1 else shape[0]
            row_bytes = int(source.n_bytes) // n_rows
            rows_at_once = max(1, _WEIGHTS_AT_ONCE // shape[-1])
            tensor = torch.empty(n_rows, shape[-1], dtype=torch.bfloat16)
            file.seek(int(source.data_offset))
            for start in range(0, n_rows, rows_at_once):
                rows = tensor[start : start + rows_at_once]
                data = np.frombuffer(file.read(len(rows) * row_bytes), dtype=np.uint8)
                rows.copy_(torch.from_numpy(np.array(dequantize(data.reshape(len(rows), -1), source.tensor_type))))
            yield name, tensor.view(shape)
