"""The page beside a lexical model."""

import pandas as pd

from lmsys_ensemble.lexical.files import LexicalRecord
from lmsys_ensemble.lexical.settings import LexicalSettings
from lmsys_ensemble.training.lexical_card import lexical_card

IMPORTANCES = pd.DataFrame(
    {
        "feature": ["log lines", "component 1"], "share": [0.7, 0.3], "direction": [0.9, -0.2],
        "speaks_for": ["its response", "the other response"], "words": ["", "tea | water"],
    }
)  # fmt: skip


def record(**files):
    return LexicalRecord(
        features_version=1, settings=LexicalSettings(), chosen={"penalty": 30.0, "rounds": 80}, tie_bias=0.0,
        training={"rows": {"here": 1200}}, files={"lexical.safetensors": "0", **files},
    )  # fmt: skip


def test_the_page_says_what_was_fitted_and_what_it_goes_by():
    page = lexical_card("counted", record(), {}, IMPORTANCES)
    assert page.startswith("# counted\n")
    assert "penalty 30\n" in page
    assert "1,200 rows of here" in page
    assert "| log lines | 0.700 | +0.90 | its response |" in page
    assert "(tea \\| water)" in page
    assert "Out-of-fold" not in page


def test_trees_are_named_where_there_are_any():
    page = lexical_card("counted", record(**{"trees.txt": "0"}), {}, IMPORTANCES)
    assert "boosted trees of 80 rounds" in page
