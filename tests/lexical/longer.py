"""A preference that can be counted: the response of more lines wins; of equally many, it is a tie."""

import functools

import numpy as np
import pandas as pd

from lmsys_ensemble.data.corpus import as_labelled
from lmsys_ensemble.lexical.model import fit_model
from lmsys_ensemble.lexical.settings import LexicalSettings
from lmsys_ensemble.schema import TASKS

WORDS = [
    "tea",
    "water",
    "kettle",
    "river",
    "stone",
    "apple",
    "because",
    "answer",
    "never",
    "cloud",
    "piano",
    "forest",
    "train",
    "winter",
    "fox",
    "dog",
]
ODD = (
    "",
    " \n\t ",
    "null",
    "🙂🙂 \U0001f34d",
    "今日はいい天気。\n- 一\n- 二",
    "```python\nprint(1)\n```\n| a | b |\n# T",
    "\x00\x1b[0m" * 50,
    "=" * 5000,
    "I’m sorry, I can’t assist with that.",
)


def make_table(n_rows, seed=0, task="three_way"):
    """Return labelled battles; rows come in pairs that share a prompt."""
    generator = np.random.default_rng(seed)
    lines = generator.integers(1, 5, (n_rows, 2))
    if task == "two_way":
        lines[:, 1] += lines[:, 0] == lines[:, 1]

    def text(n_lines):
        return "\n".join(" ".join(generator.choice(WORDS, 4)) + "." for _ in range(n_lines))

    sign = np.sign(lines[:, 0] - lines[:, 1])
    return pd.DataFrame(
        {
            "id": np.arange(n_rows),
            "prompt": [f"Tell me about {WORDS[row // 2 % 16]} number {row // 2}." for row in range(n_rows)],
            "response_a": [text(count) for count in lines[:, 0]],
            "response_b": [text(count) for count in lines[:, 1]],
            "winner": np.select([sign > 0, sign < 0], ["model_a", "model_b"], "tie"),
            "source": np.where(np.arange(n_rows) % 4 < 2, "one", "two"),
        }
    )


def odd_battles():
    """Return battles of texts that no one expects, in all pairs, and one of several turns with an empty one."""
    pairs = [(a, b) for a in ODD for b in ODD]
    rows = [([ODD[row % len(ODD)]], [a], [b]) for row, (a, b) in enumerate(pairs)]
    rows.append((["Hi", ""], ["Hello", ""], ["", "# Title\n1. one"]))
    columns = dict(zip(("prompt", "response_a", "response_b"), zip(*rows, strict=True), strict=True))
    return pd.DataFrame({"id": range(len(rows)), **{name: list(values) for name, values in columns.items()}})


@functools.cache
def fitted(kind="logistic", task="three_way", components=2):
    """Return settings, rows and the model that was fitted to them."""
    settings = LexicalSettings(model=kind, components=components, classes=TASKS[task].n_classes)
    rows = as_labelled(make_table(120, task=task), settings.task)
    return settings, rows, fit_model(rows.battles, rows.labels, rows.groups, settings)
