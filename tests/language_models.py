"""Tiny language models, adapters for them, and their answers by plain transformers with all logits."""

from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config

from lmsys_ensemble.modeling.chat import Asking, make_choice_encoder
from tests.tiny import BOS, EOS, PAD, make_config, make_tokenizer

LABELS = (("A", "B", "C"), ("1", "2", "4"))
KINDS = {
    "llama tied": ("llama", {}),
    "llama untied": ("llama", {"tie_word_embeddings": False}),
    "gemma2 tied": ("gemma2", {"final_logit_softcapping": 1.5}),
    "gemma2 untied": ("gemma2", {"tie_word_embeddings": False, "final_logit_softcapping": 1.5}),
    "gemma3 tied": ("gemma3", {}),
    "qwen2 tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 untied": ("qwen2", {"tie_word_embeddings": False}),
}


def save_language_model(kind, folder):
    """Save a language model of `KINDS` with the tiny tokenizer."""
    architecture, changes = KINDS[kind]
    torch.manual_seed(list(KINDS).index(kind))
    if architecture == "qwen2":
        shape = make_config("llama").to_dict()
        kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        kept += ("num_key_value_heads", "max_position_embeddings", "initializer_range")
        ids = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
        config = Qwen2Config(**{name: shape[name] for name in kept}, **ids, **changes)
    else:
        config = make_config(architecture, **changes)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return Path(folder)


def save_language_adapter(base, folder, **options):
    """Save what PEFT writes for a language model, no LoRA weight zero; all linear maps of the layers by default."""
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(3)
    settings = {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "lora_alpha": 8, **options}
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.2)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return Path(folder)


def make_encoder(base, **changes):
    """Return the encoder of a language model, which is asked in two ways."""
    values = {"prompts": None, "labels": LABELS, "chat": None, "chat_options": {}, "bos": None, "max_tokens": 160}
    return make_choice_encoder(base, Asking(**{**values, "truncation": "balanced", **changes}))


@torch.no_grad()
def plain_answers(base, ids, label_ids, *, adapter=None, rows_at_once=3):
    """Return the logits of some tokens at the end of every row, by padded batches of plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(base)
    model = (model if adapter is None else PeftModel.from_pretrained(model, adapter)).eval()
    parts = []
    for start in range(0, len(ids), rows_at_once):
        rows = [torch.tensor(row.astype(np.int64)) for row in ids[start : start + rows_at_once]]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
        logits = model(input_ids=tokens, attention_mask=mask).logits
        parts.append(logits[torch.arange(len(rows)), lengths - 1][:, list(label_ids)].numpy())
    return np.concatenate(parts)
