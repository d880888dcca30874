import numpy as np
import pandas as pd

from lmsys_ensemble.encoding.retention import CHARACTERS_PER_TOKEN, FIELD_CODES, estimate_tokens, retention_table

PROMPT, RESPONSE_A, RESPONSE_B = FIELD_CODES.values()


def test_tokens_of_a_text_are_estimated_from_what_was_read_of_it():
    assert estimate_tokens(10, 40, 40) == 10
    assert estimate_tokens(10, 40, 400) == 100
    assert estimate_tokens(0, 0, 8 * CHARACTERS_PER_TOKEN) == 8


def test_what_a_row_kept_and_lost_is_told_by_field():
    codes = [
        np.array([0, PROMPT, PROMPT, 0, RESPONSE_A, RESPONSE_B], dtype=np.int8),
        np.array([0, PROMPT, 0], dtype=np.int8),
    ]
    totals = [np.array([0, 2, 1.2, 1]), np.array([0, 1, 3, 0])]
    table = retention_table(pd.Index(["x", "y"]), codes, totals)
    assert table["id"].tolist() == ["x", "y"]
    assert table["n_tokens"].tolist() == [6, 3]
    assert table["truncated"].tolist() == [True, True]
    assert table[["prompt_kept", "response_a_kept", "response_b_kept"]].to_numpy().tolist() == [[2, 1, 1], [1, 0, 0]]
    assert table[["prompt_cut", "response_a_cut", "response_b_cut"]].to_numpy().tolist() == [[0, 1, 0], [0, 3, 0]]
    assert table["note"].tolist() == ["", "response_a cut entirely, response_b empty"]
