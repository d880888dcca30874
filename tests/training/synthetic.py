"""A preference that can be learned: the response that speaks of a kettle wins; if both or neither do, it is a tie."""

import json

import numpy as np
import pandas as pd

from tests.tiny import WORDS

OTHER_WORDS = [word for word in WORDS if word != "kettle"]


def make_preferences(n_rows, seed=0, source="synthetic"):
    """Return labelled battles whose rows come in pairs that share a prompt."""
    generator = np.random.default_rng(seed)

    def text(with_kettle):
        words = list(generator.choice(OTHER_WORDS, int(generator.integers(3, 12))))
        for _ in range(2 * with_kettle):
            words.insert(int(generator.integers(0, len(words) + 1)), "kettle")
        return json.dumps([" ".join(words)])

    speaks = generator.random((n_rows, 2)) < 0.5
    return pd.DataFrame(
        {
            "id": np.arange(n_rows),
            "prompt": [json.dumps([f"prompt {row // 2}"]) for row in range(n_rows)],
            "response_a": [text(a) for a, _ in speaks],
            "response_b": [text(b) for _, b in speaks],
            "winner": np.select(
                [speaks[:, 0] > speaks[:, 1], speaks[:, 0] < speaks[:, 1]], ["model_a", "model_b"], "tie"
            ),
            "source": source,
        }
    )
