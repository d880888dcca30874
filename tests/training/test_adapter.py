"""One adapter of every kind: in memory, saved, and loaded by another process, it says the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DebertaV2Config, DebertaV2Model

from lmsys_ensemble.modeling.forward import ForwardPass
from lmsys_ensemble.training import adapter as adapter_module
from lmsys_ensemble.training.run import train
from lmsys_ensemble.training.settings import TrainSettings
from tests.tiny import PAD, make_tokenizer
from tests.training.synthetic import make_preferences
from tests.training.test_run import SETTINGS

SCORE = """
import json, sys
import numpy as np
import tests.tiny
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.scorers.classifier import ClassifierScorer

for base, folder, quantization in json.loads(sys.argv[1]):
    with ClassifierScorer(base, adapter=folder, device="cpu", quantization=quantization) as scorer:
        np.save(folder + ".npy", scorer.score(parse_battles(read_table(folder + ".csv"))))
"""

LAST = {"pooling": "last_token"}
KINDS = {
    "linear": ("llama", {"head": LAST}),
    "DoRA": ("llama", {"lora": {"r": 4, "dora": True, "first_layer": 1}, "head": {**LAST, "layers": 3}}),
    "rsLoRA": ("llama", {"lora": {"r": 4, "rslora": True}, "head": {"pooling": "response_spans", "hidden_size": 8}}),
    "QLoRA": ("llama", {"quantization": "nf4", "head": {"pooling": "response_spans"}}),
    "ModernBERT": ("modernbert", {"head": LAST, "lora": {"r": 4, "target_modules": ["Wqkv", "Wo"]}}),
    "DeBERTa": ("deberta", {"head": LAST, "lora": {"r": 4, "target_modules": ["query_proj", "value_proj"]}}),
}


def train_kind(checkpoints, folder, kind, patch):
    """Train one kind of model, write its held-out rows beside it, and return their logits from the model in memory."""
    architecture, changes = KINDS[kind]
    base = save_deberta(folder / "deberta") if architecture == "deberta" else checkpoints.base(architecture)
    learn, found = adapter_module._learn, []

    def learn_and_score(job, *given, **options):
        models = []
        build = adapter_module.build_model
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(adapter_module, "build_model", lambda *given: models.append(build(*given)) or models[0])
            fitted = learn(job, *given, **options)
        forward = ForwardPass(models[0].eval().get_base_model(), job.recipe.head.pooling, PAD)
        found.append((job.held, forward.score(job.encoder.encode(job.held.battles), 1000)))
        return fitted

    patch.setattr(adapter_module, "_learn", learn_and_score)
    optimizer = {"head_l2": None, "epochs": 1, "learning_rate": 5e-3, "head_learning_rate": 1e-2}
    data = {"rows": {"data": 30}, "holdout": {"default": 0.3}}
    values = {**SETTINGS, "base_model": str(base), "scorer": "classifier", "data": data, "optimizer": optimizer}
    settings = TrainSettings.model_validate({**values, "lora": {"r": 4}, **changes})
    table = make_preferences(60).drop(columns="source")
    train(settings, table, output=folder / kind, device="cpu")
    rows, logits = found[0]
    table.set_index("id").loc[list(rows.battles.ids)].reset_index().to_csv(folder / f"{kind}.csv", index=False)
    return str(base), logits


def test_what_was_saved_scores_in_a_new_process_as_it_did_in_memory(checkpoints, tmp_path):
    asked, in_memory = [], {}
    for kind, (_, changes) in KINDS.items():
        with pytest.MonkeyPatch.context() as patch:
            base, in_memory[kind] = train_kind(checkpoints, tmp_path, kind, patch)
        asked.append((base, str(tmp_path / kind), changes.get("quantization", "none")))
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", SCORE, json.dumps(asked)], check=True, cwd=root, env=environment, timeout=300)
    for kind, logits in in_memory.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{kind}.npy"), logits, atol=2e-5, err_msg=kind)
        assert np.ptp(logits, axis=0).max() > 0.01, kind


def save_deberta(folder):
    """Save a tiny DeBERTa-v3 as pretrained ones are: without pooler and classifier."""
    torch.manual_seed(5)
    shape = {"vocab_size": 400, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = DebertaV2Config(
        **shape, num_attention_heads=4, max_position_embeddings=512, pad_token_id=PAD, relative_attention=True,
        position_buckets=32, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        type_vocab_size=0, position_biased_input=False, pooler_hidden_size=64, initializer_range=0.1,
    )  # fmt: skip
    DebertaV2Model(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
