"""Adapters of several folds become one: the mean of their weights, measured against the mean of their probabilities."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import check_new_folder, sha256_of, whole_folder, write_atomically
from lmsys_ensemble.merging.averaging import Averaged, average
from lmsys_ensemble.merging.cards import merged_card
from lmsys_ensemble.merging.comparison import compare, read_rows
from lmsys_ensemble.merging.parts import (
    AVERAGE,
    MERGED,
    SCORER_FILE,
    Base,
    Part,
    check_base,
    find_base,
    read_parts,
    scorer_settings,
)
from lmsys_ensemble.modeling.adapter_config import CONFIG_FILE
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.digests import describe_base_files
from lmsys_ensemble.modeling.golden import golden_battles, write_golden
from lmsys_ensemble.modeling.learned_rows import LEARNED_KEY, read_learned_rows, united
from lmsys_ensemble.modeling.recipe import Recipe, write_recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.tensorfiles import save_tensors
from lmsys_ensemble.modeling.tokenization import make_encoder
from lmsys_ensemble.probabilities import softmax

logger = logging.getLogger(__name__)

FILES = (WEIGHTS_FILE, CONFIG_FILE)
_TOKENS_PER_BATCH = 2048


def average_adapters(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    base: str | None = None,
    rows: Sequence[str | Path] = (),
    device: str = "auto",
    overwrite: bool = False,
    say: Callable[[str], None] = logger.info,
) -> dict[str, Any]:
    """Merge LoRA adapters of one base model (such as those of folds) into one adapter, heads included.

    The base is rounded as it was in training (``quantization`` of the adapters' ``scorer.yaml``): adapters are
    measured so, and the merged one is loaded so.

    Parameters
    ----------
    folders : sequence of str or Path
        Two or more folders with adapter, head and ``recipe.json``.
    output : str or Path
        Folder that receives adapter, head, ``recipe.json``, ``golden.json``, ``scorer.yaml`` and a model card.
    weights : sequence of float, optional
        One an adapter, above 0; their sum becomes 1. By default all weigh alike.
    rank : int, optional
        Largest rank of the merged adapter, by singular value decomposition; by default the mean is exact and its rank
        the sum of the adapters' ranks.
    base : str, optional
        Base model, as for scorers; by default the one that the first folder's ``scorer.yaml`` or recipe names.
    rows : sequence of str or Path
        Files of labelled battles to measure on: rows that no adapter was trained on.
    device : str
        ``cpu``, ``cuda:0`` and so on, or ``auto``.
    overwrite : bool
        Whether a folder that is not empty may be written to.
    say : callable
        Told in words what is being done.

    Returns
    -------
    dict
        ``rank``, ``lost`` (share of the update that the smaller rank lost), and with `rows` the ``figures``: log loss
        and accuracy of every adapter, of the average of their probabilities, and of the merged adapter.

    Raises
    ------
    ConfigError, InputError
        If the adapters are not of one kind (names the setting) or not of one base, or an argument is wrong; before
        anything is loaded.
    ModelError
        If an adapter cannot be averaged (DoRA), or heads are of different shapes.

    Warns
    -----
    SeenRowsWarning
        If an adapter has learned from some of the rows.
    """
    target = Path(output)
    check_new_folder(target, overwrite=overwrite, cure="give a new folder, or --overwrite")
    parts = read_parts(folders, weights)
    if target.resolve() in [part.folder.resolve() for part in parts]:
        raise ConfigError(f"{output} is one of the adapters to be merged; give another folder")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise ConfigError(f"rank must be a whole number above 0, got {rank!r}")
    device = hardware.check_device(hardware.list_devices()[0] if device == "auto" else device)
    recipe = parts[0].recipe
    data = read_rows(rows, parts)
    found = find_base(base, parts[0])
    for part in parts:
        check_base(found, part)
    quantization = parts[0].quantization
    mean = average([part.adapter for part in parts], [part.weight for part in parts], rank)
    say(f"merged {len(parts)} adapters: rank {mean.largest_rank}, {mean.lost:.2%} of the update lost")
    encoder = make_encoder(found.folder, recipe)
    result: dict[str, Any] = {"rank": mean.largest_rank, "lost": round(mean.lost, 6)}
    with whole_folder(target) as folder, hardware.current_device(device):
        recipe = _write_adapter(folder, mean, parts, recipe, found)
        golden = encoder.encode(golden_battles())
        scored = _score(found, recipe, folder, device, golden, quantization)
        write_golden(folder, golden, scored, _number_format(device, quantization))
        if data is not None:
            say(f"measuring on {len(data)} rows")
            encoded = encoder.encode(data.battles)
            by_part = {
                part.name: softmax(_score(found, part.recipe, part.folder, device, encoded, quantization))
                for part in parts
            }
            averaged = np.average(list(by_part.values()), axis=0, weights=[part.weight for part in parts])
            merged = softmax(_score(found, recipe, folder, device, encoded, quantization))
            result["figures"] = compare(data, {**by_part, AVERAGE: averaged, MERGED: merged}, MERGED, AVERAGE)
            recipe = write_recipe(folder, recipe.model_copy(update={"validation": result["figures"]}), FILES)
        scorer = scorer_settings(parts[0], found, target)
        if quantization != "none":
            scorer["quantization"] = quantization
        write_atomically(folder / SCORER_FILE, yaml.safe_dump(scorer, sort_keys=False))
        write_atomically(folder / "README.md", merged_card(target.name, recipe))
    return result


def _write_adapter(folder: Path, mean: Averaged, parts: Sequence[Part], recipe: Recipe, base: Base) -> Recipe:
    """Write adapter and recipe, the latter with what the parts were."""
    save_tensors(mean.weights, folder / WEIGHTS_FILE)
    mean.config.base_model_name_or_path = recipe.base_model.name
    mean.config.save_pretrained(str(folder))
    provenance = [
        {
            "name": part.name,
            "weight": round(part.weight, 6),
            "adapter_sha256": sha256_of(part.folder / WEIGHTS_FILE),
            "config_sha256": sha256_of(part.folder / CONFIG_FILE),
            "data_sha256": part.recipe.training.get("data_sha256"),
        }
        for part in parts
    ]
    training: dict[str, Any] = {
        "merged_from": provenance,
        "rank": mean.largest_rank,
        "lost": round(mean.lost, 6),
        **describe_base_files(base.folder),
    }
    learned = united([read_learned_rows(part.folder, part.recipe) for part in parts])
    if learned is not None:
        training[LEARNED_KEY] = learned.write(folder)
    return write_recipe(folder, recipe.model_copy(update={"training": training, "validation": {}}), FILES)


def _number_format(device: str, quantization: str) -> str:
    if quantization != "none":
        return quantization
    return hardware.dtype_name(hardware.resolve_dtype("auto", device))


def _score(base: Base, recipe: Recipe, adapter: Path, device: str, encoded: Encoded, quantization: str) -> Any:
    compute = ComputeSettings(device=device, quantization=quantization)
    forward = assemble(base.folder, recipe, compute, adapter=adapter, golden_folder=adapter)
    return forward.score(encoded, _TOKENS_PER_BATCH)
