"""A lexical model's folder: what it is made of, digests of that, and golden rows.

``lexical.json`` names settings, figures and the digest of every other file; ``lexical.safetensors`` holds the numbers,
``vocabulary.json`` the terms, ``trees.txt`` (where there are trees) LightGBM's own text format, ``golden.json`` battles
with the logits that they must give. Nothing in it is code, and nothing is unpickled.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import ConfigError, GoldenError, IntegrityError
from lmsys_ensemble.files import read_mapping, sha256_of, write_atomically, write_json
from lmsys_ensemble.lexical.features import FEATURES_VERSION, feature_names, read_texts
from lmsys_ensemble.lexical.logistic import Logistic
from lmsys_ensemble.lexical.model import LexicalModel
from lmsys_ensemble.lexical.settings import LexicalSettings
from lmsys_ensemble.lexical.tfidf import NO_TFIDF, Tfidf
from lmsys_ensemble.lexical.trees import load_trees
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import Task
from lmsys_ensemble.settings import Settings, parse_settings

FileName = Literal["lexical.safetensors", "vocabulary.json", "trees.txt"]
RECORD_FILE, GOLDEN_FILE = "lexical.json", "golden.json"
ARRAYS_FILE: FileName = "lexical.safetensors"
TERMS_FILE: FileName = "vocabulary.json"
TREES_FILE: FileName = "trees.txt"

GOLDEN_TOLERANCE = 1e-4
"""Largest difference of a golden row's probability: the same sums, on another machine."""

_REGRESSION = ("difference_scales", "difference_weights", "shared_means", "shared_scales", "shared_weights")


class LexicalRecord(Settings):
    """Content of ``lexical.json``."""

    schema_version: Literal[1] = 1
    features_version: int
    settings: LexicalSettings
    chosen: dict[str, float]
    tie_bias: float = Field(allow_inf_nan=False)
    training: dict[str, Any] = Field(default={})
    validation: dict[str, Any] = Field(default={})
    files: dict[FileName, str]

    @model_validator(mode="after")
    def _numbers_have_a_digest(self) -> Self:
        """Refuse a record without the digest of the numbers: what is loaded is what the fingerprint speaks of."""
        if ARRAYS_FILE not in self.files:
            raise ValueError(f"files must hold the digest of {ARRAYS_FILE}")
        return self

    @property
    def task(self) -> Task:
        """Classes, in the order of the logits' columns."""
        return self.settings.task

    @property
    def has_trees(self) -> bool:
        """Whether lightgbm is needed to score."""
        return TREES_FILE in self.files


class _GoldenBattle(Settings):
    prompt: list[str]
    response_a: list[str]
    response_b: list[str]
    logits: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(min_length=2, max_length=3)


class _Golden(Settings):
    schema_version: Literal[1] = 1
    rows: list[_GoldenBattle] = Field(min_length=1, max_length=1000)


def save_model(
    folder: Path,
    model: LexicalModel,
    settings: LexicalSettings,
    golden: Battles,
    *,
    training: dict[str, Any] | None = None,
    validation: dict[str, Any] | None = None,
) -> LexicalRecord:
    """Write a model's files; `golden` are the battles that golden rows are made of."""
    arrays = {name: np.ascontiguousarray(getattr(model.regression, name), dtype=np.float64) for name in _REGRESSION}
    arrays |= {"shares": model.shares, "directions": model.directions}
    names: list[FileName] = [ARRAYS_FILE]
    if model.tfidf.terms:
        arrays |= {"idf": model.tfidf.idf, "components": np.ascontiguousarray(model.tfidf.components)}
        write_json(folder / TERMS_FILE, list(model.tfidf.terms))
        names.append(TERMS_FILE)
    write_atomically(folder / ARRAYS_FILE, save(arrays))
    if model.trees is not None:
        write_atomically(folder / TREES_FILE, model.trees.model_to_string())
        names.append(TREES_FILE)
    logits = model.logits(read_texts(golden))
    rows = [
        {"prompt": [*row.prompt], "response_a": [*row.response_a], "response_b": [*row.response_b], "logits": values}
        for row, values in zip(golden, logits.astype(float).round(6).tolist(), strict=True)
    ]
    write_json(folder / GOLDEN_FILE, parse_settings(_Golden, {"rows": rows}, folder).model_dump())
    record = LexicalRecord(
        features_version=FEATURES_VERSION,
        settings=settings,
        chosen=model.chosen,
        tie_bias=model.regression.tie_bias,
        training=training or {},
        validation=validation or {},
        files={name: sha256_of(folder / name) for name in names},
    )
    write_json(folder / RECORD_FILE, json.loads(record.model_dump_json()))
    return record


def read_record(folder: Path, *, verify: bool = True) -> LexicalRecord:
    """Read ``lexical.json``.

    Parameters
    ----------
    folder : Path
        Where the model lies.
    verify : bool
        Whether to compare the other files with their digests.

    Raises
    ------
    ConfigError
        If it is not there or not valid, or was written by another version of the features.
    IntegrityError
        If a file is missing or is not the one that was saved.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        raise ConfigError(f"{folder} holds no {RECORD_FILE}; name a folder that 'lmsys-ensemble fit-lexical' wrote")
    record = parse_settings(LexicalRecord, read_mapping(path), path)
    if record.features_version != FEATURES_VERSION:
        raise ConfigError(
            f"{path}: it was fitted on version {record.features_version} of the features, this release has "
            f"{FEATURES_VERSION}; fit it again"
        )
    for name, expected in record.files.items() if verify else ():
        file = folder / name
        if not file.is_file():
            raise IntegrityError(f"{file} is missing; {path} lists it")
        if (found := sha256_of(file)) != expected:
            raise IntegrityError(
                f"{file} is not the file that was saved: sha256 {found[:12]}…, expected {expected[:12]}…. Copy the "
                "folder again"
            )
    return record


def load_model(folder: Path) -> LexicalModel:
    """Load a model, and make sure that it gives the logits it gave when it was saved.

    Raises
    ------
    ConfigError, IntegrityError
        If a file is missing, damaged or of another model.
    MissingDependencyError
        If it has trees and lightgbm is not installed.
    GoldenError
        If golden rows come out otherwise.
    """
    record = read_record(folder)
    try:
        arrays = load_file(folder / ARRAYS_FILE)
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{folder / ARRAYS_FILE} cannot be read: {error}") from error
    terms = read_mapping(folder / TERMS_FILE) if TERMS_FILE in record.files else []
    _check_arrays(folder, arrays, terms)
    tfidf = Tfidf(tuple(terms), arrays["idf"], arrays["components"]) if terms else NO_TFIDF
    n_classes = record.task.n_classes
    weights = {name: arrays[name] for name in _REGRESSION}
    regression = Logistic(**weights, tie_bias=record.tie_bias, n_classes=n_classes)
    trees = _load_trees(folder, record, len(arrays["shares"])) if record.has_trees else None
    model = LexicalModel(tfidf, regression, trees, n_classes, record.chosen, arrays["shares"], arrays["directions"])
    _check_golden(folder, model)
    return model


def _check_arrays(folder: Path, arrays: dict[str, Any], terms: Any) -> None:
    """Raise `ConfigError` unless all numbers are there, finite, and of shapes that belong together."""
    if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
        raise ConfigError(f"{folder / TERMS_FILE} must be a list of words")
    n_components = len(arrays["components"]) if terms and "components" in arrays else 0
    differences, shared = map(len, feature_names(n_components))
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("shares", "directions"), (differences + shared,))
    if terms:
        shapes |= {"idf": (len(terms),), "components": (n_components, len(terms))}
    shapes |= {name: (differences if name.startswith("difference") else shared,) for name in _REGRESSION}
    for name, shape in shapes.items():
        found = arrays.get(name)
        if found is None or found.shape != shape or not np.isfinite(found).all():
            got = "missing" if found is None else f"of shape {found.shape}, or not finite"
            raise ConfigError(f"{folder / ARRAYS_FILE}: {name} is {got}; expected finite numbers of shape {shape}")


def _load_trees(folder: Path, record: LexicalRecord, n_features: int) -> Any:
    path = folder / TREES_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{path} is no text: {error}. Copy the folder again") from error
    return load_trees(text, path, n_features, record.task.n_classes)


def _check_golden(folder: Path, model: LexicalModel) -> None:
    path = folder / GOLDEN_FILE
    rows = parse_settings(_Golden, read_mapping(path), path).rows
    if any(len(row.logits) != model.n_classes for row in rows):
        raise ConfigError(f"{path} holds logits of another number of classes than {model.n_classes}")
    battles = Battles(
        pd.RangeIndex(len(rows)),
        [tuple(row.prompt) for row in rows],
        [tuple(row.response_a) for row in rows],
        [tuple(row.response_b) for row in rows],
    )
    found = softmax(model.logits(read_texts(battles)))
    difference = float(np.abs(found - softmax([row.logits for row in rows])).max())
    if not difference <= GOLDEN_TOLERANCE:
        raise GoldenError(
            f"{folder} does not give the probabilities it gave when it was saved: they differ by {difference:.4f}, "
            f"more than {GOLDEN_TOLERANCE}. Its files, or this release's features, are not those it was fitted with"
        )
