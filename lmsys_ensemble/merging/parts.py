"""Adapters that are to become one: read, and checked for what they must have in common."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmsys_ensemble.bases.sources import locate_base, resolve_base
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import read_object
from lmsys_ensemble.merging.averaging import check_can_average, check_whole_modules
from lmsys_ensemble.modeling.adapters import Adapter, read_adapter
from lmsys_ensemble.modeling.digests import BASE_HASHES, is_base_of
from lmsys_ensemble.modeling.recipe import SHAPE_KEYS, Recipe, describe_base, read_recipe

SCORER_FILE = "scorer.yaml"

AVERAGE, MERGED, UNMERGED = "probability average", "merged", "unmerged"
"""What figures call the average of the parts' probabilities, what was merged, and an adapter beside its base."""


@dataclass(frozen=True)
class Part:
    """One of the adapters to be averaged, with the share that it has in the mean."""

    name: str
    adapter: Adapter
    recipe: Recipe
    weight: float

    @property
    def folder(self) -> Path:
        """Folder of the adapter."""
        return self.adapter.folder

    @property
    def quantization(self) -> str:
        """What its base is rounded to when it is loaded: as its ``scorer.yaml`` says, else as it was trained."""
        settings = self.recipe.training.get("settings", {})
        return str(_scorer_file(self.folder).get("quantization") or settings.get("quantization") or "none")


@dataclass(frozen=True)
class Base:
    """A base model: what ``scorer.yaml`` calls it, and its local folder."""

    name: str
    folder: Path


def read_parts(folders: Sequence[str | Path], weights: Sequence[float] | None) -> list[Part]:
    """Read adapters and recipes, and make sure that they can be averaged.

    Raises
    ------
    ConfigError
        If there are fewer than two, weights are wrong, a recipe is missing or differs in what scoring takes from it.
    ModelError
        If an adapter cannot be averaged, or heads are of different shapes.
    """
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < max(len(paths), 2):
        raise ConfigError(f"merging takes two or more different adapters, got {', '.join(map(str, paths)) or 'none'}")
    shares = _shares(weights, len(paths))
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.resolve().parent.name}/{path.resolve().name}" for path in paths]
    if len({*names, AVERAGE, MERGED}) < len(names) + 2:
        names = [str(path) for path in paths]
    parts = [read_part(path, name, share) for name, path, share in zip(names, paths, shares, strict=True)]
    for part in parts:
        check_can_average(part.adapter)
    for part in parts[1:]:
        check_same_kind(parts[0], part)
    check_whole_modules([part.adapter for part in parts])
    return parts


def read_part(folder: str | Path, name: str | None = None, weight: float = 1.0) -> Part:
    """Read an adapter with its recipe; by default its name is that of its folder.

    Raises
    ------
    ModelError
        If it is no adapter.
    ConfigError
        If it has no recipe.
    """
    path = Path(folder)
    return Part(name or path.resolve().name, read_adapter(path), _recipe_of(path), weight)


def _shares(weights: Sequence[float] | None, n_parts: int) -> list[float]:
    if weights is None:
        return [1 / n_parts] * n_parts
    if len(weights) != n_parts:
        raise ConfigError(f"{n_parts} adapters need {n_parts} weights, got {len(weights)}")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise ConfigError(f"weights must be numbers above 0, got {weight!r}")
    return [weight / sum(weights) for weight in weights]


def _recipe_of(folder: Path) -> Recipe:
    recipe = read_recipe(folder)
    if recipe is None:
        raise ConfigError(
            f"{folder} holds no recipe.json, which says what the adapter was trained with; 'lmsys-ensemble "
            "import-checkpoint' makes one"
        )
    return recipe


def check_same_kind(first: Part, other: Part) -> None:
    """Raise `ConfigError` if two adapters are of different bases, or differ in what scoring takes from them."""
    values, others = (
        {
            **part.recipe.model_dump(mode="json", exclude={"training", "validation", "files"}),
            "quantization": part.quantization,
        }
        for part in (first, other)
    )
    differences = _differences(values, others)
    hashes, other_hashes = ({name: part.recipe.training.get(name) for name in BASE_HASHES} for part in (first, other))
    if not differences and any(
        None not in (hashes[name], other_hashes[name]) and hashes[name] != other_hashes[name] for name in BASE_HASHES
    ):
        raise ConfigError(
            f"{first.folder} and {other.folder} cannot be merged: the files of their base models, both called "
            f"{first.recipe.base_model.name}, are not the same. Merge adapters of one base"
        )
    if differences:
        said = "; ".join(f"{name} is {value!r} and {another!r}" for name, value, another in differences)
        raise ConfigError(f"{first.folder} and {other.folder} cannot be merged, they were trained differently: {said}")


def _differences(one: Mapping[str, Any], other: Mapping[str, Any], where: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for name in one.keys() | other.keys():
        first, second = one.get(name), other.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            found += _differences(first, second, f"{where}{name}.")
        elif first != second:
            found.append((f"{where}{name}", first, second))
    return sorted(found)


def find_base(asked: str | None, part: Part) -> Base:
    """Return the base model of an adapter: the one asked for, else what its ``scorer.yaml`` or its recipe names.

    Raises
    ------
    ConfigError
        If it is not there, of another shape than the recipe says, or not dequantised from the file that it names.
    """
    recipe = part.recipe.base_model
    settings = _scorer_file(part.folder)
    name = asked or str(settings.get("model") or recipe.name)
    if asked is None and (part.folder / name).is_dir():
        name = str((part.folder / name).resolve())
    revision = recipe.revision or settings.get("revision")
    try:
        locate_base(name, revision)
    except ConfigError as error:
        raise ConfigError(f"{error}. Say with --base where the base model of {part.folder} is") from error
    folder = resolve_base(name, revision)
    described = describe_base(folder, name)
    other = [
        f"{key} {getattr(described, key)} instead of {getattr(recipe, key)}"
        for key in (*SHAPE_KEYS, "gguf_sha256")
        if getattr(recipe, key) is not None and getattr(described, key) != getattr(recipe, key)
    ]
    if other:
        raise ConfigError(f"{name} is not the base model of {part.folder}, {recipe.name}: {', '.join(other)}")
    return Base(name, folder)


def check_base(base: Base, part: Part) -> None:
    """Raise `ConfigError` if a base model's files are not those that an adapter was trained on, as far as is known."""
    if is_base_of(part.recipe.training, base.folder) is False:
        raise ConfigError(
            f"{base.name} is not the base model of {part.folder}: its files are not those that the adapter was trained "
            "on. Say with --base where these are"
        )


def _scorer_file(folder: Path) -> dict[str, Any]:
    path = folder / SCORER_FILE
    return read_object(path) if path.is_file() else {}


def scorer_settings(part: Part, base: Base, target: Path) -> dict[str, Any]:
    """Return what ``scorer.yaml`` of a merged adapter says."""
    settings = _scorer_file(part.folder)
    # The folder may be moved or given away: no file in it names a path of this machine.
    model = os.path.relpath(base.folder, target.resolve()) if Path(base.name).is_dir() else base.name
    scorer = {"type": settings.get("type", "classifier"), "name": target.resolve().name, "model": model, "adapter": "."}
    if part.recipe.base_model.revision:
        scorer["revision"] = part.recipe.base_model.revision
    return scorer
