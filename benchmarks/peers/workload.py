"""What every peer is given: the same rows as token ids, as text and as a table, and the same weights."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from lmsys_ensemble import parse_battles
from lmsys_ensemble.bases.sources import resolve_base
from lmsys_ensemble.modeling.building import quiet_transformers
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.tokenization import make_encoder

FILES = ("hh_multi_turn.parquet", "gpt4_preferences.parquet")
COLUMNS = ["prompt", "response_a", "response_b"]
LABELS = ["a_wins", "b_wins", "tie"]
PAD_TOKEN_ID = 0
PAD_WORD = "<pad>"
N_CALIBRATION = 24
HEAD_SCALE = 0.02


@dataclass(frozen=True)
class Workload:
    """A job's file and the sizes that go into the report."""

    file: Path
    job: dict[str, Any]
    flop_per_token: float

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every row."""
        return np.array([len(ids) for ids in self.job["ids"]])

    def padding_share(self, batch_size: int) -> float:
        """Return the share of padding in batches of rows sorted by length."""
        ordered = np.sort(self.lengths)[::-1]
        starts = range(0, len(ordered), batch_size)
        padded = sum(int(ordered[start]) * len(ordered[start : start + batch_size]) for start in starts)
        return 1 - int(ordered.sum()) / padded


def sample_tables(data: Path, n_rows: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the battles to score, half from each file, and others to calibrate with."""
    scored, calibration = [], []
    for position, name in enumerate(FILES):
        share = n_rows // 2 + (n_rows % 2 if position == 0 else 0)
        rows = pd.read_parquet(data / name)[COLUMNS].sample(share + N_CALIBRATION // 2, random_state=seed)
        scored.append(rows[:share])
        calibration.append(rows[share:])
    numbered = [pd.concat(parts, ignore_index=True) for parts in (scored, calibration)]
    for table in numbered:
        table.insert(0, "id", np.arange(len(table)))
    return numbered[0], numbered[1]


def write_workload(name: str, data: Path, folder: Path, *, n_rows: int, max_tokens: int, seed: int) -> Workload:
    """Write rows and checkpoints of the base model `name` into `folder`."""
    folder.mkdir(parents=True)
    base = resolve_base(name)
    recipe = Recipe.model_validate(
        {
            "base_model": {"name": name},
            "template": {"name": "turns"},
            "max_tokens": max_tokens,
            "special_tokens": {"pad_token_id": PAD_TOKEN_ID},
        }
    )
    encoder = make_encoder(base, recipe)
    table, others = sample_tables(data, n_rows, seed)
    table.to_parquet(folder / "rows.parquet")
    ids = [row.tolist() for row in encoder.encode(parse_battles(table)).ids]
    flop = write_checkpoints(base, folder, seed)
    job = {
        "checkpoint": str(folder / "checkpoint"),
        "ours": str(folder / "ours"),
        "table": str(folder / "rows.parquet"),
        "settings": {"template": "turns", "max_tokens": max_tokens, "pad_token_id": PAD_TOKEN_ID},
        "ids": ids,
        "texts": [" ".join(map(str, row)) for row in ids],
        "calibration": [row.tolist() for row in encoder.encode(parse_battles(others)).ids],
        "labels": LABELS,
        "max_tokens": max_tokens,
    }
    check_texts(folder / "checkpoint", job)
    (folder / "job.json").write_text(json.dumps(job))
    return Workload(folder / "job.json", job, flop)


def write_checkpoints(base: Path, folder: Path, seed: int) -> float:
    """Write the base model with a seeded head, once with the numbers' tokenizer and once with its own.

    Returns the floating-point operations a token, attention and embeddings left out: twice the weights that are
    multiplied with.
    """
    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=3, dtype=torch.float32, local_files_only=True
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=generator) * HEAD_SCALE)
    model.config.pad_token_id = PAD_TOKEN_ID
    model.config.id2label = dict(enumerate(LABELS))
    model.config.label2id = {label: number for number, label in enumerate(LABELS)}
    with quiet_transformers():
        model.save_pretrained(folder / "checkpoint")
    shutil.copytree(folder / "checkpoint", folder / "ours", copy_function=os.link)
    numbers_tokenizer(model.config.vocab_size).save_pretrained(folder / "checkpoint")
    for file in base.glob("*token*"):
        shutil.copy2(file, folder / "ours")
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    matrices = [weight for weight in model.parameters() if weight.dim() == 2 and id(weight) not in embeddings]
    return 2.0 * sum(weight.numel() for weight in matrices)


def numbers_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words are token ids in decimal.

    Peers that take only text thus get the very token ids of the rows, and tokenising costs them nothing.
    """
    vocabulary = {PAD_WORD if number == PAD_TOKEN_ID else str(number): number for number in range(vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_WORD,
        unk_token=PAD_WORD,
        model_input_names=["input_ids", "attention_mask"],
    )


def check_texts(checkpoint: Path, job: dict[str, Any]) -> None:
    """Make sure that the texts become the rows' token ids."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if tokenizer(job["texts"])["input_ids"] != job["ids"]:
        sys.exit("the numbers' tokenizer does not give back the rows' token ids")
