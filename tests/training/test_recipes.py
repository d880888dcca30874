"""The recipes of public notebooks: valid, as stated, and trained with a tiny base of the same architecture."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, DebertaV2Config

from lmsys_ensemble.cleaning.settings import HygieneSettings
from lmsys_ensemble.config import models_folder
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.encoding.templates import get_template
from lmsys_ensemble.files import read_object
from lmsys_ensemble.modeling.recipe import SpecialTokensRecipe, read_recipe
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.scorers.registry import build_scorer
from lmsys_ensemble.training.run import train
from lmsys_ensemble.training.settings import read_train_settings
from tests.tiny import BOS, EOS, PAD, make_tokenizer, save_base
from tests.training.synthetic import make_preferences

RECIPES = sorted((models_folder() / "recipes").glob("*.yaml"))
NAMES = [path.stem for path in RECIPES]

STATED = {
    "gemma-2-9b-qlora": {
        "quantization": "nf4", "max_tokens": 2048, "lora.r": 16, "lora.alpha": 32, "optimizer.learning_rate": 2e-4,
        "batches.rows": 4, "optimizer.rows_per_step": 16, "template": "kaggle-gemma", "scorer": "gemma",
    },
    "llama-3-8b-int8": {
        "quantization": "int8", "lora.r": 16, "lora.alpha": 32, "lora.target_modules": ["o_proj", "v_proj"],
        "template": "kaggle-llama", "scorer": "llama",
    },
    "llama-3.1-8b-5fold": {
        "lora.r": 4, "lora.alpha": 8, "lora.target_modules": ["q_proj", "k_proj", "v_proj"], "lora.first_layer": 16,
        "scorer": "llama",
    },
    "deberta-v3-large": {"quantization": "none", "scorer": "classifier"},
    "gemma-2-9b-distilled": {
        "quantization": "none", "lora.r": 64, "lora.alpha": 128, "optimizer.learning_rate": 5e-5, "optimizer.epochs": 2,
        "optimizer.rows_per_step": 64, "distillation.terms.hard": 1, "distillation.terms.kl": 2,
        "distillation.terms.cosine": 2, "distillation.temperature": 1, "distillation.cosine_of": "probabilities",
        "scorer": "gemma",
    },
}  # fmt: skip
"""What is known of each notebook."""

ARCHITECTURES = {
    "gemma-2-9b-qlora": "gemma2", "llama-3-8b-int8": "llama", "llama-3.1-8b-5fold": "llama",
    "deberta-v3-large": "deberta", "gemma-2-9b-distilled": "gemma2",
}  # fmt: skip


def save_tiny(architecture, folder, n_layers):
    """Save a tiny base of so many layers."""
    if architecture != "deberta":
        return save_base(architecture, folder, num_hidden_layers=n_layers, max_position_embeddings=8192)
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=n_layers, num_attention_heads=4,
        max_position_embeddings=512, relative_attention=True, position_buckets=32, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, norm_rel_ebd="layer_norm", share_att_key=True, type_vocab_size=0,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, num_labels=3,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def setting(settings, path):
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


def test_every_notebook_has_its_recipe():
    assert set(NAMES) == set(STATED) == set(ARCHITECTURES)


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_is_valid_and_as_the_notebook_states_it(path):
    settings = read_train_settings(path)
    assert settings.name == path.stem
    for name, value in STATED[path.stem].items():
        assert setting(settings, name) == value, name
    get_template(settings.template)
    assert settings.data.files == ["train.csv"]
    assert settings.data.hygiene == HygieneSettings()
    lines = path.read_text(encoding="utf-8").splitlines()
    header = " ".join(line.lstrip("# ") for line in lines[: lines.index("version: 1")])
    assert all(line.startswith("#") for line in lines[: lines.index("version: 1")])
    assert f"lmsys-ensemble train {path.name}" in header
    assert "Ours" in header  # what is not from the notebook
    assert "http" not in header


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_trains_with_a_tiny_base_of_the_same_architecture(path, tmp_path):
    settings = read_train_settings(path)
    base = save_tiny(ARCHITECTURES[path.stem], tmp_path / "base", n_layers=settings.lora.first_layer + 2)
    tokens = SpecialTokensRecipe(**{**settings.special_tokens.model_dump(), "pad_token_id": PAD})
    settings = settings.model_copy(update={"base_model": str(base), "special_tokens": tokens})
    table = make_preferences(24)
    for teacher in settings.distillation.teachers if settings.distillation else ():
        said = np.random.default_rng(0).normal(size=(24, 3))
        table[["id"]].join(pd.DataFrame(said, columns=THREE_WAY.columns)).to_parquet(tmp_path / teacher.file)
    train(settings, table, output=tmp_path / "trained", data_folder=tmp_path, device="cpu", cache=tmp_path / "cache")
    recipe = read_recipe(tmp_path / "trained")
    assert recipe.max_tokens == settings.max_tokens
    assert recipe.training["settings"]["lora"] == settings.lora.model_dump()
    scorer = build_scorer(read_object(tmp_path / "trained" / "scorer.yaml"), tmp_path / "trained")
    with scorer:
        logits = scorer.score(parse_battles(table))
    assert logits.shape == (24, 3)
    assert np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).min() > 0
