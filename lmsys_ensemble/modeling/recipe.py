"""``recipe.json``: how a model was trained, for inference to do the same.

A recipe lies beside every adapter. Inference takes template, length, truncation, control tokens, label order and head
from it and refuses settings that contradict it. This module imports neither torch nor transformers.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from lmsys_ensemble.encoding.templates import Template, get_template
from lmsys_ensemble.encoding.truncation import Policy
from lmsys_ensemble.errors import ConfigError, IntegrityError
from lmsys_ensemble.files import read_mapping, read_object, sha256_of, write_json
from lmsys_ensemble.schema import TASKS, THREE_WAY, Task
from lmsys_ensemble.settings import Settings, parse_settings

RECIPE_FILE = "recipe.json"
SCHEMA_VERSION = 1
SHAPE_KEYS = ("model_type", "hidden_size", "vocab_size", "num_hidden_layers")
"""Entries of a base model's ``config.json`` by which another model is told apart."""

MODEL_TYPES = {"llama": ("llama",), "gemma": ("gemma", "gemma2", "gemma3", "gemma3_text")}
"""Architectures (``model_type``) that a scorer takes which is made for some; by its name in configuration files."""

Pooling = Literal["last_token", "response_spans"]


class BaseModelRecipe(Settings):
    """The base model: where it comes from and the shape by which another one is told apart.

    ``gguf_sha256`` is the hash of the GGUF file whose dequantised weights the base holds, where it does: weights of
    the same model from elsewhere differ from them by what quantisation has rounded.
    """

    name: str
    revision: str | None = None
    model_type: str | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None
    num_hidden_layers: int | None = None
    gguf_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @model_serializer(mode="wrap")
    def _as_ever(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a base of plain weights does not have: fingerprints of earlier releases stay as they are."""
        values: dict[str, Any] = serialize(self)
        if values.get("gguf_sha256") is None:
            values.pop("gguf_sha256", None)
        return values


class TemplateRecipe(Settings):
    """Name and version of the template."""

    name: str
    version: int = 1


class SpecialTokensRecipe(Settings):
    """Control tokens around every sequence, and the token that pooling takes for padding.

    With ``pad_token_id`` equal to the end token, as several public checkpoints have it, the pooled position is the
    token before the end token.
    """

    bos: bool = True
    eos: bool = True
    pad_token_id: int | None = None


class HeadRecipe(Settings):
    """The classification head.

    ``layers`` is the number of the base model's layers that are run (None: all of them). ``last_token`` pools the
    last token, as transformers does; ``response_spans`` adds what the tokens of the two responses differ in (see
    `lmsys_ensemble.modeling.pooling.pool_response_spans`). ``hidden_size`` puts a hidden layer of so many units (GELU)
    between what is pooled and the logits.
    """

    pooling: Pooling = "last_token"
    layers: int | None = Field(default=None, ge=1)
    hidden_size: int | None = Field(default=None, ge=1, le=2**16)

    @model_serializer(mode="wrap")
    def _as_ever(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a linear head does not have: fingerprints of earlier releases stay as they are."""
        values: dict[str, Any] = serialize(self)
        if values.get("hidden_size") is None:
            values.pop("hidden_size", None)
        return values


class Recipe(Settings):
    """All that inference must know of how a model was trained."""

    schema_version: Literal[1] = 1
    base_model: BaseModelRecipe
    template: TemplateRecipe
    max_tokens: int = Field(ge=8)
    truncation: Policy = "balanced"
    special_tokens: SpecialTokensRecipe = SpecialTokensRecipe()
    classes: tuple[str, ...] = THREE_WAY.classes
    head: HeadRecipe = HeadRecipe()
    soft_capping: bool = True
    training: dict[str, Any] = Field(default={})
    validation: dict[str, Any] = Field(default={})
    files: dict[str, str] = Field(default={})

    @field_validator("classes")
    @classmethod
    def _known_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if not any(task.classes == classes for task in TASKS.values()):
            known = " or ".join(str(list(task.classes)) for task in TASKS.values())
            raise ValueError(f"label order must be {known}, got {list(classes)}")
        return classes

    @field_validator("files")
    @classmethod
    def _beside_it(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if name in ("", ".", "..") or re.search(r"[/\\\x00]", name):
                raise ValueError(f"a recipe vouches for files beside it, got {name[:60]!r}")
        return files

    @property
    def task(self) -> Task:
        """The task that the classes belong to."""
        return next(task for task in TASKS.values() if task.classes == self.classes)

    def get_template(self) -> Template:
        """Return the template, in the version that the model was trained with."""
        return get_template(self.template.name, self.template.version)


def describe_base(folder: Path, name: str, revision: str | None = None) -> BaseModelRecipe:
    """Describe a base model by what its ``config.json`` says of its shape, and where its weights are dequantised."""
    config = read_mapping(folder / "config.json")
    shape = {key: config.get(key) for key in SHAPE_KEYS}
    return BaseModelRecipe(name=name, revision=revision, gguf_sha256=dequantized_from(folder), **shape)


MANIFEST_FILE = "manifest.json"
"""Beside weights that were converted from a GGUF file: its hash, and those of all files."""


def dequantized_from(folder: Path) -> str | None:
    """Return the SHA-256 of the GGUF file whose dequantised weights a folder holds; None for other weights.

    Raises
    ------
    ConfigError
        If ``manifest.json`` cannot be read.
    """
    path = folder / MANIFEST_FILE
    found = read_object(path).get("gguf_sha256") if path.is_file() else None
    return found if isinstance(found, str) else None


def read_recipe(folder: Path, *, verify: bool = True) -> Recipe | None:
    """Read ``recipe.json`` of a folder; None if there is none.

    Parameters
    ----------
    folder : Path
        Folder of an adapter.
    verify : bool
        Whether to compare the files that the recipe vouches for with their hashes, which reads them whole.

    Raises
    ------
    ConfigError
        If it is no valid recipe.
    IntegrityError
        If a file is missing or is not the one that was saved with the recipe.
    """
    path = folder / RECIPE_FILE
    if not path.is_file():
        return None
    values = read_mapping(path)
    version = values.get("schema_version") if isinstance(values, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ConfigError(f"{path} has schema version {version}; this release reads up to {SCHEMA_VERSION}")
    recipe = parse_settings(Recipe, values, path)
    for name, expected in recipe.files.items() if verify else ():
        file = folder / name
        if not file.is_file():
            raise IntegrityError(f"{file} is missing; {path} lists it")
        found = sha256_of(file)
        if found != expected:
            raise IntegrityError(
                f"{file} is not the file that was saved with its recipe: sha256 {found[:12]}…, "
                f"expected {expected[:12]}…. Copy the folder again"
            )
    return recipe


def write_recipe(folder: Path, recipe: Recipe, files: tuple[str, ...] = ()) -> Recipe:
    """Write ``recipe.json`` with the hashes of `files` and return what was written."""
    hashes = {name: sha256_of(folder / name) for name in files}
    complete = recipe.model_copy(update={"files": hashes})
    write_json(folder / RECIPE_FILE, json.loads(complete.model_dump_json()))
    return complete


def check_contradictions(recipe: Recipe, asked: dict[str, Any], source: str | Path) -> None:
    """Refuse settings that differ from what the model was trained with.

    Parameters
    ----------
    recipe : Recipe
        What the model was trained with.
    asked : dict
        Settings given for inference by the recipe's names (dots lead into its parts); None means "as trained".
    source : str or Path
        Where the recipe lies.

    Raises
    ------
    ConfigError
        Names each setting, with both values.
    """
    differences = []
    for name, value in asked.items():
        trained: Any = recipe
        for part in name.split("."):
            trained = getattr(trained, part)
        if value is not None and value != trained:
            differences.append(f"{name} is {value!r}, trained with {trained!r}")
    if differences:
        raise ConfigError(f"settings contradict the recipe of {source}: {'; '.join(differences)}. Leave them out")
