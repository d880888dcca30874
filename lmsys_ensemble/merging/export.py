"""A trained adapter and its base become one plain transformers folder, in full precision or rounded to 8 or 4 bits."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import nn

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.errors import ConfigError, GoldenError
from lmsys_ensemble.files import check_new_folder, read_object, sha256_of, whole_folder, write_atomically, write_json
from lmsys_ensemble.merging.calibration import CalibrationRows, read_calibration, round_layers
from lmsys_ensemble.merging.cards import exported_card
from lmsys_ensemble.merging.comparison import compare, read_rows
from lmsys_ensemble.merging.compression import (
    Scheme,
    check_compression,
    choose_scheme,
    compression_config,
)
from lmsys_ensemble.merging.parts import (
    MERGED,
    SCORER_FILE,
    UNMERGED,
    Base,
    Part,
    check_base,
    find_base,
    read_part,
    scorer_settings,
)
from lmsys_ensemble.merging.weights import load_unmerged, merged_tensors, plain_name, rounded_layers, stored_dtype
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.forward import ForwardPass
from lmsys_ensemble.modeling.golden import (
    TOLERANCES,
    Golden,
    golden_battles,
    golden_inputs,
    read_golden,
    write_golden,
)
from lmsys_ensemble.modeling.learned_rows import LEARNED_FILE
from lmsys_ensemble.modeling.prequantized import ENTRY, stored_quantization
from lmsys_ensemble.modeling.recipe import Recipe, describe_base, write_recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.tensorfiles import save_shards
from lmsys_ensemble.modeling.tokenization import make_encoder
from lmsys_ensemble.probabilities import Logits, softmax

logger = logging.getLogger(__name__)

SHARD_BYTES = 2 * 2**30
TOLERANCE = {"none": "bfloat16", "int8": "int8", "w4a16": "nf4"}
"""The number format whose tolerance golden rows are held to, by quantisation."""

_TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
)
_TOKENS_PER_BATCH = 2048


@dataclass(frozen=True)
class Exported:
    """A merged model that was written.

    Attributes
    ----------
    dtype : str
        Number format of what is not quantised.
    files : list of str
        Files of weights.
    golden_difference : float
        Largest difference of a probability on the golden rows.
    figures : dict or None
        Merged and unmerged model on labelled rows, see `lmsys_ensemble.merging.comparison.compare`.
    """

    dtype: str
    files: list[str]
    golden_difference: float
    figures: dict[str, Any] | None = None


def export_merged(
    adapter: str | Path,
    output: str | Path,
    *,
    base: str | None = None,
    quantization: str = "none",
    calibration: Sequence[str | Path] = (),
    dtype: str = "auto",
    rows: Sequence[str | Path] = (),
    device: str = "auto",
    say: Callable[[str], None] = logger.info,
) -> Exported:
    """Merge a LoRA adapter into its base model and write a folder that transformers, and scorers, load.

    The sum of weights and update is computed in float32, one layer at a time, and written as it is computed: beside the
    base model, memory holds one file of at most 2 GiB. The folder appears only when it is complete and its golden rows
    have reproduced the adapter's probabilities.

    Parameters
    ----------
    adapter : str or Path
        Folder with adapter, head and ``recipe.json``.
    output : str or Path
        New folder.
    base : str, optional
        Base model, as for scorers; by default the one that the adapter's ``scorer.yaml`` or recipe names.
    quantization : {"none", "int8", "w4a16"}
        8 bits with a scale a row, or 4 bits with a scale for 128 weights (64 or 32, where widths ask for it), in the
        format of compressed-tensors; the head and embeddings stay as they are.
    calibration : sequence of str or Path
        Files of battles like those that will be scored, labels not needed: linear layers are rounded so that their
        outputs on these rows change little (GPTQ). By default weights are rounded to the nearest value.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        Number format of what is not quantised, but for the head, which stays float32; ``auto``: the base's.
    rows : sequence of str or Path
        Files of labelled battles to measure merged and unmerged model on: rows that the adapter was not trained on.
    device : str
        Where golden rows, and `rows`, are scored.
    say : callable
        Told in words what is being done.

    Raises
    ------
    ConfigError, InputError
        If an argument is wrong, or the base is stored quantised; before anything is loaded.
    GoldenError
        If the golden rows' probabilities differ from the adapter's by more than the tolerance; nothing is written.

    Warns
    -----
    SeenRowsWarning
        If the adapter has learned from some of the rows.
    """
    check_compression(quantization)
    target = Path(output)
    check_new_folder(target)
    device = hardware.check_device(hardware.list_devices()[0] if device == "auto" else device)
    part = read_part(adapter)
    found = find_base(base, part)
    if base is None:  # one that is named may be in another number format; golden rows then tell whether it is the one
        check_base(found, part)
    stored_as = stored_quantization(found.folder)
    if stored_as is not None:
        raise ConfigError(
            f"{found.name} is stored as {stored_as}, and merging would round the update away; give the base in full "
            "precision with --base"
        )
    calibration_rows = read_calibration(calibration, quantization, make_encoder(found.folder, part.recipe))
    number_format = stored_dtype(found.folder) if dtype == "auto" else dtype
    torch_dtype = hardware.resolve_dtype(number_format, device)
    data = read_rows(rows, [part])
    golden = _golden_of(part, found, device)
    encoded = None if data is None else make_encoder(found.folder, part.recipe).encode(data.battles)
    systems = {}
    if encoded is not None:
        say(f"measuring the unmerged model on {len(encoded)} rows")
        systems[UNMERGED] = softmax(_unmerged(part, found, device).score(encoded, _TOKENS_PER_BATCH))
    say(f"merging {part.name} into {found.name} as {number_format}, quantization {quantization}")
    with whole_folder(target) as folder:
        merged = load_unmerged(part, found, torch_dtype)
        layers = rounded_layers(merged)
        scheme = choose_scheme(quantization, [layer.in_features for _, layer in layers])
        stored = None
        if scheme is not None and calibration_rows is not None:
            stored = round_layers(merged, calibration_rows.ids, layers, scheme, torch_dtype, say)
        files = save_shards(merged_tensors(merged, torch_dtype, scheme, stored), folder, SHARD_BYTES)
        _write_config(folder, merged, part.recipe, scheme, number_format)
        for path in {path for pattern in _TOKENIZER_FILES for path in found.folder.glob(pattern)}:
            shutil.copyfile(path, folder / path.name)
        del merged, layers, stored
        recipe = _recipe(folder, part, number_format, quantization, calibration_rows)
        with hardware.current_device(device):
            forward = assemble(folder, recipe, ComputeSettings(device=device), adapter=None)
            difference = _check_golden(forward, golden, quantization)
            say(f"golden rows differ by {difference:.1e} from the adapter's")
            _write_golden(folder, recipe, forward, device)
            figures = None
            if data is not None and encoded is not None:
                say(f"measuring the merged model on {len(data)} rows")
                systems[MERGED] = softmax(forward.score(encoded, _TOKENS_PER_BATCH))
                figures = compare(data, systems, MERGED, UNMERGED)
        recipe = write_recipe(folder, _measured(recipe, difference, figures))
        if (part.folder / LEARNED_FILE).is_file():
            shutil.copyfile(part.folder / LEARNED_FILE, folder / LEARNED_FILE)
        scorer = {**scorer_settings(part, found, target), "model": "."}
        write_atomically(folder / SCORER_FILE, yaml.safe_dump(_without_adapter(scorer), sort_keys=False))
        write_atomically(folder / "README.md", exported_card(target.resolve().name, recipe))
    return Exported(number_format, files, difference, figures)


def _write_config(folder: Path, model: Any, recipe: Recipe, scheme: Scheme | None, dtype: str) -> None:
    config = model.config
    config.id2label = dict(enumerate(recipe.classes))
    config.label2id = {name: number for number, name in enumerate(recipe.classes)}
    if recipe.special_tokens.pad_token_id is not None:
        config.get_text_config().pad_token_id = recipe.special_tokens.pad_token_id
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    config.save_pretrained(folder)
    values = read_object(folder / "config.json")
    if scheme is not None:
        kept = {plain_name(name) for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        kept = {name for name in kept if ".lora_" not in name and ".original_module" not in name}
        values[ENTRY] = compression_config(scheme, sorted(kept - dict(rounded_layers(model)).keys()))
    write_json(folder / "config.json", values)


def _recipe(folder: Path, part: Part, dtype: str, quantization: str, rows: CalibrationRows | None) -> Recipe:
    """Return the recipe of the merged model: as trained, with the base's shape as it is now."""
    before = part.recipe
    described = describe_base(folder, before.base_model.name, before.base_model.revision)
    export = {
        "adapter": part.name,
        "adapter_sha256": sha256_of(part.folder / WEIGHTS_FILE),
        "dtype": dtype,
        "quantization": quantization,
        **({"calibration": rows.provenance} if rows else {}),
        "validation_of_adapter": before.validation,
    }
    return before.model_copy(
        update={
            "base_model": described,
            "head": before.head.model_copy(update={"layers": None}),
            "training": {**before.training, "export": export},
            "validation": {},
            "files": {},
        }
    )


def _measured(recipe: Recipe, difference: float, figures: dict[str, Any] | None) -> Recipe:
    export = {**recipe.training["export"], "golden_difference": round(difference, 6)}
    return recipe.model_copy(update={"training": {**recipe.training, "export": export}, "validation": figures or {}})


def _without_adapter(scorer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scorer.items() if name not in ("adapter", "revision")}


def _golden_of(part: Part, base: Base, device: str) -> tuple[Sequence[Any], Sequence[Any], Logits]:
    """Return ids, fields and logits of the adapter's golden rows; computed where it has none."""
    golden = read_golden(part.folder)
    if golden is None:
        encoded = make_encoder(base.folder, part.recipe).encode(golden_battles())
        return encoded.ids, encoded.fields, _unmerged(part, base, device).score(encoded, _TOKENS_PER_BATCH)
    return *golden_inputs(golden), _logits_of(golden)


def _logits_of(golden: Golden) -> Logits:
    return np.array([row.logits for row in golden.rows], dtype=np.float32)


def _unmerged(part: Part, base: Base, device: str) -> ForwardPass:
    """Load base and adapter as they are."""
    with hardware.current_device(device):
        return assemble(base.folder, part.recipe, ComputeSettings(device=device, merge=False), adapter=part.folder)


def _check_golden(
    forward: ForwardPass, golden: tuple[Sequence[Any], Sequence[Any], Logits], quantization: str
) -> float:
    """Return how far the probabilities of golden rows are from the adapter's.

    Raises
    ------
    GoldenError
        If that is above the tolerance.
    """
    ids, fields, expected = golden
    difference = float(np.abs(softmax(forward(ids, fields)) - softmax(expected)).max())
    allowed = TOLERANCES[TOLERANCE[quantization]]
    if not difference <= allowed:
        raise GoldenError(
            f"the merged model's probabilities differ by {difference:.3f} from the adapter's on its golden rows, "
            f"more than {allowed} (quantization {quantization}); nothing was written"
        )
    return difference


def _write_golden(folder: Path, recipe: Recipe, forward: ForwardPass, device: str) -> None:
    rows = make_encoder(folder, recipe).encode(golden_battles())
    number_format = hardware.dtype_name(hardware.resolve_dtype("auto", device))
    write_golden(folder, rows, forward.score(rows, _TOKENS_PER_BATCH), number_format)
