"""Tiny real checkpoints: random weights of four architectures, each with a tokenizer, and PEFT adapters for them.

Weights are drawn wide enough that attention is far from uniform and logits are of order one: a mask, a position or a
layer that is wrong moves them by much more than the tolerances of the tests.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
)

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.templates import get_template
from lmsys_ensemble.encoding.tokens import Encoder
from lmsys_ensemble.modeling.recipe import Recipe

torch.set_num_threads(1)  # matrices this small are slower on several cores

_TEXT = (
    "the a of to and is it in that was for on are with as be at one have this from by hot water tea kettle river stone "
    "green apple seven because answer question model prompt response better worse maybe never always computer cloud "
    "music piano violin forest mountain train station winter summer quick brown fox lazy dog Zürich naïve 日本 🙂 42 17"
)
WORDS = _TEXT.split()
PAD, BOS, EOS = 0, 1, 2
SLIDING_WINDOW = 16
MAX_TOKENS = 160
DECODERS = ("llama", "gemma2", "gemma3")
ARCHITECTURES = (*DECODERS, "modernbert")

_SHAPE = {
    "vocab_size": 400,
    "hidden_size": 64,  # bitsandbytes quantises blocks of 64
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
_GROUPED = {**_SHAPE, "num_key_value_heads": 2, "head_dim": 16}


def make_config(architecture, **changes):
    """Return the configuration of a tiny model."""
    if architecture == "llama":
        return LlamaConfig(**{**_GROUPED, "tie_word_embeddings": True, **changes})
    if architecture == "gemma2":
        capped = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 16}
        return Gemma2Config(**{**_GROUPED, **capped, "sliding_window": SLIDING_WINDOW, **changes})
    if architecture == "gemma3":
        kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
        special = {"sliding_window": SLIDING_WINDOW, "layer_types": kinds, "query_pre_attn_scalar": 16}
        return Gemma3TextConfig(**{**_GROUPED, **special, **changes})
    special = {"local_attention": SLIDING_WINDOW, "global_attn_every_n_layers": 2, "cls_token_id": BOS}
    return ModernBertConfig(**{**_SHAPE, **special, "sep_token_id": EOS, "initializer_cutoff_factor": 3.0, **changes})


@functools.cache
def make_tokenizer():
    """Train a byte-level BPE tokenizer that puts <bos> before a text, as those of Llama 3 and Gemma do."""
    generator = np.random.default_rng(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_SHAPE["vocab_size"],
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(generator.choice(WORDS, 20)) for _ in range(200)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def save_base(architecture, folder, **changes):
    """Save a language model without a classification head (an encoder: a classifier, as there is no other)."""
    torch.manual_seed(ARCHITECTURES.index(architecture))
    encoder = architecture == "modernbert"
    kind = AutoModelForSequenceClassification if encoder else AutoModelForCausalLM
    config = make_config(architecture, **({"num_labels": 3} if encoder else {}), **changes)
    return _save(kind.from_config(config), folder)


def save_classifier(architecture, folder, **changes):
    """Save a classifier with its head."""
    torch.manual_seed(10 + ARCHITECTURES.index(architecture))
    config = make_config(architecture, **{"num_labels": 3, **changes})
    return _save(AutoModelForSequenceClassification.from_config(config), folder)


def _save(model, folder):
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return Path(folder)


def save_adapter(base, folder, *, seed=0, rank=4, num_labels=3, spread=0.2):
    """Save what a Trainer writes for a PEFT classifier: LoRA weights (none of them zero) and the head."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=num_labels)
    encoder = hasattr(model, "classifier")
    targets = ["Wqkv", "Wo"] if encoder else ["q_proj", "v_proj", "o_proj"]
    config = LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, target_modules=targets)
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or ("modules_to_save" in name and "weight" in name):
                parameter.normal_(std=spread)
    wrapped.save_pretrained(folder)
    return Path(folder)


class Checkpoints:
    """Folders of tiny checkpoints, each made when it is first asked for; tests must not write to them."""

    def __init__(self, folder):
        self.folder = folder

    def base(self, architecture):
        """Return a base model without a trained head."""
        return self._once(f"{architecture}-base", lambda path: save_base(architecture, path))

    def classifier(self, architecture):
        """Return a classifier with its head."""
        return self._once(f"{architecture}-classifier", lambda path: save_classifier(architecture, path))

    def adapter(self, architecture):
        """Return a PEFT folder for `base`, with LoRA weights and a head, without a recipe."""
        base, seed = self.base(architecture), ARCHITECTURES.index(architecture)
        return self._once(f"{architecture}-adapter/checkpoint-5748", lambda path: save_adapter(base, path, seed=seed))

    def _once(self, name, make):
        path = self.folder / name
        if not path.exists():
            make(path)
        return path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


def make_battles(n_rows=12, seed=0, longest=25):
    """Return battles of one to three turns whose texts have very different lengths."""
    generator = np.random.default_rng(seed)

    def text():
        return " ".join(generator.choice(WORDS, int(generator.integers(1, longest))))

    columns = ([], [], [])
    for _ in range(n_rows):
        n_turns = int(generator.integers(1, 3))
        for column in columns:
            column.append(tuple(text() for _ in range(n_turns)))
    return Battles(pd.RangeIndex(n_rows), *columns)


def make_recipe(**changes):
    """Return a recipe that fits every tiny base model."""
    values = {"base_model": {"name": "tiny"}, "template": {"name": "turns"}, "max_tokens": MAX_TOKENS}
    return Recipe.model_validate({**values, **changes})


def encode(battles, max_tokens=MAX_TOKENS, template="turns", **options):
    """Encode battles with the tiny tokenizer, <bos> before and <eos> behind."""
    tokenizer = make_tokenizer().backend_tokenizer
    encoder = Encoder(tokenizer, get_template(template), max_tokens=max_tokens, bos_id=BOS, eos_id=EOS, **options)
    return encoder.encode(battles)


def plain_model(base, *, adapter=None, merge=False, pad_token_id=PAD, **options):
    """Load a classifier the way everybody does, with transformers and PEFT and nothing of ours."""
    if "config" not in options:
        options = {"num_labels": 3, "pad_token_id": pad_token_id, **options}
    model = AutoModelForSequenceClassification.from_pretrained(base, **options)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
        model = model.merge_and_unload() if merge else model
    return model.eval()


@torch.no_grad()
def plain_logits(model, ids, rows_at_once=1):
    """Score token ids with plain transformers: right-padded batches in the order of the rows."""
    pad_token_id = model.config.get_text_config().pad_token_id
    parts = []
    for start in range(0, len(ids), rows_at_once):
        rows = [torch.tensor(row.astype(np.int64)) for row in ids[start : start + rows_at_once]]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_token_id)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
        parts.append(model(input_ids=tokens, attention_mask=mask).logits.float().numpy())
    return np.concatenate(parts)
