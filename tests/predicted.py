"""Simulated predictions for tests: noisy views of one truth, as arrays and as files."""

import json

import numpy as np
import pandas as pd

from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY, Task

FIRST_ID = 2**31


def predictions(n_rows: int, noises=(1.0, 1.0), seed: int = 0, n_classes: int = 3):
    """Return probabilities by member, and labels drawn from what the members saw through noise."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=(n_rows, n_classes)) * 1.5
    members = {
        f"m{number}": softmax(truth + noise * generator.normal(size=truth.shape)) for number, noise in enumerate(noises)
    }
    uniform = generator.random((n_rows, 1))
    labels = (uniform > softmax(truth).cumsum(axis=1)[:, :-1]).sum(axis=1)
    return members, labels


def row_ids(n_rows: int) -> np.ndarray:
    return FIRST_ID + 3 * np.arange(n_rows)


def probability_table(probabilities: np.ndarray, task: Task = THREE_WAY) -> pd.DataFrame:
    table = pd.DataFrame(probabilities, columns=list(task.columns))
    table.insert(0, "id", row_ids(len(table)))
    return table


def battle_table(n_rows: int, prompt: str = "prompt") -> pd.DataFrame:
    """Return battles of one to five turns and growing length, of two sources."""
    turns = [1 + row % 5 for row in range(n_rows)]
    texts = {
        name: [json.dumps([f"{name} {row} " + "x" * row] * turns[row]) for row in range(n_rows)]
        for name in ("response_a", "response_b")
    }
    prompts = [json.dumps([f"{prompt} {row}"] * turns[row]) for row in range(n_rows)]
    return pd.DataFrame({"id": row_ids(n_rows), "prompt": prompts, **texts, "source": ["arena", "web"] * (n_rows // 2)})
