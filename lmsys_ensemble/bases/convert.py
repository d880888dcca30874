"""Conversion of a GGUF file to config, tokenizer and safetensors."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lmsys_ensemble.modeling.building import LOAD_LOCK, quiet_transformers
from lmsys_ensemble.modeling.tensorfiles import save_tensors


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to float32 and write it as a folder that transformers loads.

    transformers refuses ``save_pretrained`` for a model loaded from GGUF, so the parts are written one by one. The
    classification head that transformers makes up is left out.

    Parameters
    ----------
    gguf : Path
        File of an architecture that transformers reads from GGUF (Llama, Gemma 3 and others).
    folder : Path
        Made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with LOAD_LOCK, quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForSequenceClassification.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
    tokenizer.save_pretrained(folder)
    weights = {
        f"{model.base_model_prefix}.{name}": tensor.contiguous()
        for name, tensor in model.base_model.state_dict().items()
    }
    save_tensors(weights, folder / "model.safetensors")
    config = model.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "id2label", "label2id"):
        config.pop(name, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
