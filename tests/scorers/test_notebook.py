"""The public two-model notebook of the competition, written again in plain transformers, against the ensemble."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer

from lmsys_ensemble import Blender, Ensemble, GemmaScorer, LlamaScorer, build_submission
from tests.tiny import make_battles, plain_model

MAX_LENGTH = 110
COLUMNS = ["winner_model_a", "winner_model_b", "winner_tie"]


@pytest.fixture
def table():
    """Return battles as the competition's CSV has them: JSON lists with a null, ids in no order."""
    battles = make_battles(14)
    columns = {
        name: [json.dumps(turns) for turns in column]
        for name, column in (
            ("prompt", battles.prompts),
            ("response_a", battles.responses_a),
            ("response_b", battles.responses_b),
        )
    }
    two_turns = next(row for row, turns in enumerate(battles.prompts) if len(turns) == 2)
    columns["response_a"][two_turns] = '["the river", null]'
    ids = np.random.default_rng(1).permutation(14) * 1_000_003
    return pd.DataFrame({"id": ids, **columns})


def process_text(text):
    return " ".join(turn or "" for turn in json.loads(text))


def gemma_text(row):
    return (
        "<prompt>: "
        + process_text(row.prompt)
        + "\n\n<response_a>: "
        + process_text(row.response_a)
        + "\n\n<response_b>: "
        + process_text(row.response_b)
    )


def llama_text(row):
    return (
        "User prompt: "
        + process_text(row.prompt)
        + "\n\nModel A :\n"
        + process_text(row.response_a)
        + "\n\n--------\n\nModel B:\n"
        + process_text(row.response_b)
    )


@torch.no_grad()
def notebook_probabilities(table, make_text, base, adapter):
    """Cut the right end, sort by length, pad batches of four, softmax, and go back to the table's order."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.padding_side = "right"
    # add_eos_token no longer does in transformers 5 what it did for the notebooks; the end token is appended by hand.
    encoded = tokenizer([make_text(row) for row in table.itertuples()], max_length=MAX_LENGTH - 1, truncation=True)
    data = pd.DataFrame({"input_ids": [[*ids, tokenizer.eos_token_id] for ids in encoded["input_ids"]]})
    data["length"] = data["input_ids"].apply(len)
    data = data.sort_values("length", ascending=False)
    model = plain_model(base, adapter=adapter, pad_token_id=tokenizer.pad_token_id)
    probabilities = []
    for start in range(0, len(data), 4):
        batch = data["input_ids"].iloc[start : start + 4].tolist()
        inputs = tokenizer.pad({"input_ids": batch}, padding="longest", return_tensors="pt")
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        probabilities.extend(outputs.logits.float().softmax(-1).tolist())
    data[COLUMNS] = probabilities
    assert data["length"].max() == MAX_LENGTH > data["length"].min()
    return data.sort_index()[COLUMNS].to_numpy()


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.7, 0.3)])
def test_the_ensemble_submits_what_the_notebook_submits(checkpoints, table, weights):
    gemma = notebook_probabilities(table, gemma_text, checkpoints.base("gemma2"), checkpoints.adapter("gemma2"))
    llama = notebook_probabilities(table, llama_text, checkpoints.base("llama"), checkpoints.adapter("llama"))
    expected = pd.DataFrame(weights[0] * gemma + weights[1] * llama, columns=COLUMNS)
    expected.insert(0, "id", table["id"])

    settings = {"device": "cpu", "truncation": "tail", "max_tokens": MAX_LENGTH}
    ensemble = Ensemble(
        [
            GemmaScorer(
                str(checkpoints.base("gemma2")), adapter=str(checkpoints.adapter("gemma2")), name="gemma", **settings
            ),
            LlamaScorer(
                str(checkpoints.base("llama")), adapter=str(checkpoints.adapter("llama")), name="llama", **settings
            ),
        ],
        blender=Blender() if weights == (0.5, 0.5) else Blender(weights=list(weights)),
    )
    submission = build_submission(ensemble.predict(table))
    pd.testing.assert_frame_equal(submission, expected, check_exact=False, atol=1e-5, rtol=0)
    assert np.abs(gemma - llama).max() > 0.1
    assert expected[COLUMNS].std().min() > 0.02
