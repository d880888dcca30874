"""``golden.json``: a few inputs with the logits they gave when the model was saved.

A model can load without an error and still be another one: a head of random numbers, another tokenizer, another
template. Loading scores the golden rows again, and says so when they come out otherwise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.errors import ConfigError, GoldenError
from lmsys_ensemble.files import read_mapping, write_json
from lmsys_ensemble.probabilities import Logits, softmax
from lmsys_ensemble.settings import Settings, parse_settings

GOLDEN_FILE = "golden.json"

TOLERANCES = {"float32": 0.002, "float16": 0.02, "bfloat16": 0.05, "int8": 0.1, "nf4": 0.2}
"""Largest difference of a probability from its golden value, by number format. Rows were saved in float32 (or in the
format named in the file); the figures bound what the formats' rounding does, a random head misses them by far."""

OTHER_BASE_TOLERANCE = TOLERANCES["nf4"]
"""The same for a base whose weights are known to differ by the rounding to about 4 bits."""

_TURNS = (
    (("What is 17 * 3?",), ("51",), ("17 * 3 = 54, because 17 * 2 = 34 and 34 + 20 = 54.",)),
    (
        ("Write a haiku about rain.", "Now one about snow, please."),
        (
            "Soft rain on the roof\nthe garden drinks in silence\nmorning comes up green",
            "I have written one already.",
        ),
        ("Rain.", "White hush on the hills\nevery footprint is a word\nthe wind takes them back"),
    ),
    (
        ("Explain how a refrigerator works.",),
        (
            "A refrigerator moves heat from its inside to the room. A liquid evaporates in the pipes inside, which "
            "takes up heat; a compressor squeezes the vapour, which becomes hot; and behind the fridge it gives that "
            "heat off and turns liquid again.",
        ),
        ("It makes cold with electricity.",),
    ),
    (
        ("Is the earth flat?",),
        ("No. It is very nearly a sphere, a little wider at the equator than from pole to pole.",),
        ("No, the Earth is round: an oblate spheroid.",),
    ),
    (("Übersetze ins Englische: „Guten Morgen, wie geht es dir?“",), ("Good morning, how are you?",), ("",)),
)


class GoldenRow(Settings):
    """Token ids of one row, the field of each token, and the logits they gave."""

    ids: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(min_length=1, max_length=2**20)
    fields: list[Annotated[int, Field(ge=0, lt=2**7)]]
    logits: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(min_length=2)

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if len(self.ids) != len(self.fields):
            raise ValueError(f"{len(self.ids)} ids have {len(self.fields)} fields, expected one field per token")
        return self


class Golden(Settings):
    """Content of ``golden.json``."""

    schema_version: Literal[1] = 1
    dtype: Literal["float32", "float16", "bfloat16", "int8", "nf4"]
    rows: list[GoldenRow] = Field(min_length=1, max_length=1000)


def golden_battles() -> Battles:
    """Return the battles that golden rows are made of: short and long, two turns, an empty answer, no ASCII."""
    prompts, responses_a, responses_b = (list(column) for column in zip(*_TURNS, strict=True))
    return Battles(pd.RangeIndex(len(prompts)), prompts, responses_a, responses_b)


def write_golden(folder: Path, encoded: Encoded, logits: Logits, dtype: str) -> None:
    """Write ``golden.json`` for rows whose logits of shape (n_rows, n_classes) were computed in `dtype`."""
    rows = [
        {"ids": ids.tolist(), "fields": fields.tolist(), "logits": [round(float(value), 6) for value in row]}
        for ids, fields, row in zip(encoded.ids, encoded.fields, logits, strict=True)
    ]
    path = folder / GOLDEN_FILE
    write_json(path, parse_settings(Golden, {"dtype": dtype, "rows": rows}, path).model_dump())


def read_golden(folder: Path) -> Golden | None:
    """Read ``golden.json`` of a folder; None if there is none."""
    path = folder / GOLDEN_FILE
    return parse_settings(Golden, read_mapping(path), path) if path.is_file() else None


def check_golden_fits(golden: Golden, n_classes: int, vocab_size: int | None, source: str | Path) -> None:
    """Make sure that golden rows can be of a model, before it is run on them: a GPU does not survive an id too large.

    Raises
    ------
    ConfigError
        If logits are for another number of classes, or token ids are beyond the vocabulary.
    """
    widths = sorted({len(row.logits) for row in golden.rows} - {n_classes})
    if widths:
        raise ConfigError(
            f"{source}: {GOLDEN_FILE} holds rows of {widths[0]} logits, expected {n_classes} (one per class)"
        )
    largest = max(max(row.ids) for row in golden.rows)
    if vocab_size is not None and largest >= vocab_size:
        raise ConfigError(
            f"{source}: {GOLDEN_FILE} holds the token id {largest:,}, the base model has {vocab_size:,} tokens; "
            "it is of another model"
        )


def check_golden(
    golden: Golden, logits: Logits, number_format: str, source: str | Path, *, other_base: bool = False
) -> float:
    """Compare logits with the golden ones.

    Parameters
    ----------
    golden : Golden
        What was saved.
    logits : ndarray of shape (n_rows, n_classes)
        What the same ids give now.
    number_format : str
        Key of `TOLERANCES`: what the model computes in now.
    source : str or Path
        Where the model lies, for the error.
    other_base : bool
        Whether the base is known to be rounded otherwise than the one that rows were saved with.

    Returns
    -------
    float
        Largest difference of a probability.

    Raises
    ------
    GoldenError
        If it is above the tolerance.
    """
    saved = softmax([row.logits for row in golden.rows])
    difference = float(np.abs(softmax(logits) - saved).max())
    tolerance = max(TOLERANCES[number_format], TOLERANCES[golden.dtype], OTHER_BASE_TOLERANCE if other_base else 0.0)
    if not difference <= tolerance:
        raise GoldenError(
            f"{source} does not give the probabilities it gave when it was saved: they differ by {difference:.3f}, "
            f"more than {tolerance} ({number_format}). Base model, head or adapter are not those it was trained with"
        )
    return difference


def golden_inputs(golden: Golden) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
    """Return token ids and field codes of the golden rows as arrays."""
    ids = [np.array(row.ids, dtype=np.int32) for row in golden.rows]
    fields = [np.array(row.fields, dtype=np.int8) for row in golden.rows]
    return ids, fields
