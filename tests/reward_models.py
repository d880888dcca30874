"""Tiny reward models: a head of one output on each kind of decoder, with LoRA or without, and their plain rewards."""

import torch
from transformers import AutoModelForSequenceClassification, Qwen2Config

from tests.tiny import make_config, make_tokenizer, save_adapter

TURN = "<bos>{{ message['role'] }}\n{{ message['content'] }}<eos>\n"
CHAT = "{% for message in messages %}" + TURN + "{% endfor %}{% if add_generation_prompt %}<bos>assistant\n{% endif %}"
KINDS = ("llama", "gemma2", "qwen2")


def save_reward_model(architecture, folder, *, num_labels=1, template=None):
    """Save a reward model with its head, and the tiny tokenizer with a chat template, where one is given."""
    torch.manual_seed(KINDS.index(architecture))
    config = make_config("llama" if architecture == "qwen2" else architecture, num_labels=num_labels)
    if architecture == "qwen2":
        values = config.to_dict()
        left_out = ("model_type", "architectures", "transformers_version", "attention_bias", "mlp_bias", "head_dim")
        config = Qwen2Config(**{name: value for name, value in values.items() if name not in left_out})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def save_reward_adapter(base, folder):
    """Save LoRA weights and a head of one output for a base."""
    return save_adapter(base, folder, num_labels=1)
