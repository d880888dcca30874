"""The page beside a lexical model: what it is, what was measured, and what it goes by."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lmsys_ensemble.lexical.files import LexicalRecord
from lmsys_ensemble.training.card import verdict
from lmsys_ensemble.training.folds_card import markdown
from lmsys_ensemble.training.out_of_fold import figures_table

N_FEATURES = 20
"""Features that the page shows; ``importances.csv`` has all."""


def lexical_card(name: str, record: LexicalRecord, figures: Mapping[str, Any], importances: pd.DataFrame) -> str:
    """Return the page in Markdown."""
    settings, chosen = record.settings, record.chosen
    trees = f" and boosted trees of {chosen['rounds']:g} rounds, averaged" if record.has_trees else ""
    rows = ", ".join(f"{count:,} rows of {source}" for source, count in record.training.get("rows", {}).items())
    lines = [
        f"# {name}",
        "",
        "A model of what can be counted in two responses (length, format, refusals, overlap with the prompt, script, "
        "words), fitted by `lmsys-ensemble fit-lexical`. It is the baseline that every language model must beat. "
        "Swapping the responses swaps its probabilities exactly.",
        "",
        f"- a multinomial regression with penalty {chosen['penalty']:g}{trees}",
        f"- TF-IDF of at most {settings.terms:,} words in {settings.components} components",
        f"- classes, in order: {', '.join(record.task.classes)}",
        f"- learned from {rows}",
        "",
        *(_measured(figures) if figures else []),
        "## What it goes by",
        "",
        "*Share* is that of a feature in the absolute weights of the regression, averaged with that in what trees "
        "gained; what more of it speaks for is the sign of its correlation with the model's own logits. "
        "`importances.csv` has all features.",
        "",
        *markdown(_shown(importances)),
        "",
    ]
    return "\n".join(lines)


def _measured(figures: Mapping[str, Any]) -> list[str]:
    return [
        "## Out-of-fold figures",
        "",
        f"{figures['n_splits']} folds by prompt; every row is predicted by a model that has not seen its fold. Log "
        "loss in nats (lower is better) and accuracy with 95 % bootstrap intervals over groups. *Class prior* predicts "
        "the mean label of the rows of the same source that were learned from; *length only* is a logistic regression "
        "on the responses' lengths.",
        "",
        *markdown(figures_table(figures)),
        "",
        *verdict(figures["overall"]),
        "",
    ]


def _shown(importances: pd.DataFrame) -> pd.DataFrame:
    table = importances.head(N_FEATURES).copy()
    named = zip(table["feature"], table["words"].str.replace("|", "\\|"), strict=True)
    table["feature"] = [f"{name} ({words})" if words else name for name, words in named]
    table["share"], table["direction"] = table["share"].map("{:.3f}".format), table["direction"].map("{:+.2f}".format)
    return table.drop(columns="words").rename(columns={"speaks_for": "more of it speaks for"}).astype(str)
