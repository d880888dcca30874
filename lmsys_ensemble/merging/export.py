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

from lmsys_ensemble.errors import ConfigError, GoldenError
from lmsys_ensemble.files import check_new_folder, read_object, sha256_of, whole_folder, write_atomically, write_json
from lmsys_ensemble.merging.calibration import CalibrationRows, read_calibration, round_layers
from lmsys_ensemble.merging.cards import exported_card
from lmsys_ensemble.merging.compression import (
    Scheme,
    check_compression,
    choose_scheme,
    compression_config,
)
from lmsys_ensemble.merging.parts import SCORER_FILE, Base, Part, find_base, read_part, scorer_settings
from lmsys_ensemble.merging.weights import load_unmerged, merged_tensors, plain_name, rounded_layers
from lmsys_ensemble.modeling import hardware
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.golden import (
    TOLERANCES,
    Golden,
    golden_battles,
    golden_inputs,
    read_golden,
    write_golden,
)
from lmsys_ensemble.modeling.prequantized import ENTRY, stored_quantization
from lmsys_ensemble.modeling.recipe import Recipe, describe_base, write_recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.tensorfiles import read_header, save_shards
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
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_TOKENS_PER_BATCH = 2048


@dataclass(frozen=True)
class Exported:
    """What was written: number format, files of weights, and the golden rows' largest difference of a probability."""

    dtype: str
    files: list[str]
    golden_difference: float


def export_merged(
    adapter: str | Path,
    output: str | Path,
    *,
    base: str | None = None,
    quantization: str = "none",
    calibration: Sequence[str | Path] = (),
    dtype: str = "auto",
    device: str = "auto",
    say: Callable[[str], None] = logger.info,
) -> Exported:
    """Merge a LoRA adapter into its base model and write a folder that transformers, and scorers, load.

    The sum of weights and update is computed in float32, one layer at a time, and written as it is computed: beside the
    base model, memory holds one file of at most 2 GiB. The folder appears whole, after its golden rows have come out as
    the adapter's.

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
    device : str
        Where golden rows are scored.
    say : callable
        Told in words what is being done.

    Raises
    ------
    ConfigError, InputError
        If an argument is wrong, or the base is stored quantised; before anything is loaded.
    GoldenError
        If golden rows come out otherwise than the adapter's; nothing is written then.
    """
    check_compression(quantization)
    target = Path(output)
    check_new_folder(target)
    device = hardware.check_device(hardware.list_devices()[0] if device == "auto" else device)
    part = read_part(adapter)
    found = find_base(base, part)
    stored_as = stored_quantization(found.folder)
    if stored_as is not None:
        raise ConfigError(
            f"{found.name} is stored as {stored_as}, and merging would round the update away; give the base in full "
            "precision with --base"
        )
    calibration_rows = read_calibration(calibration, quantization, make_encoder(found.folder, part.recipe))
    number_format = stored_dtype(found.folder) if dtype == "auto" else dtype
    torch_dtype = hardware.resolve_dtype(number_format, device)
    golden = _golden_of(part, found, device)
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
        difference = _check_golden(folder, recipe, golden, device, quantization)
        say(f"golden rows differ by {difference:.1e} from the adapter's")
        recipe = write_recipe(folder, _with_difference(recipe, difference))
        scorer = {**scorer_settings(part, found, target), "model": "."}
        write_atomically(folder / SCORER_FILE, yaml.safe_dump(_without_adapter(scorer), sort_keys=False))
        write_atomically(folder / "README.md", exported_card(target.resolve().name, recipe))
    return Exported(number_format, files, difference)


def stored_dtype(folder: Path) -> str:
    """Return the number format that most of a model's weights are stored in.

    Raises
    ------
    ConfigError
        If it is none of float32, bfloat16 and float16.
    """
    n_bytes: dict[str, int] = {}
    for path in folder.glob("*.safetensors"):
        for entry in read_header(path).values():
            n_bytes[entry.dtype] = n_bytes.get(entry.dtype, 0) + entry.stop - entry.start
    most = max(n_bytes, key=lambda name: n_bytes[name], default="nothing")
    if most not in _STORED:
        raise ConfigError(f"{folder} holds weights of {most}; expected {', '.join(_STORED)}")
    return _STORED[most]


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


def _with_difference(recipe: Recipe, difference: float) -> Recipe:
    export = {**recipe.training["export"], "golden_difference": round(difference, 6)}
    return recipe.model_copy(update={"training": {**recipe.training, "export": export}})


def _without_adapter(scorer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scorer.items() if name not in ("adapter", "revision")}


def _golden_of(part: Part, base: Base, device: str) -> tuple[Sequence[Any], Sequence[Any], Logits]:
    """Return ids, fields and logits of the adapter's golden rows; computed where it has none."""
    golden = read_golden(part.folder)
    if golden is None:
        encoded = make_encoder(base.folder, part.recipe).encode(golden_battles())
        forward = assemble(base.folder, part.recipe, ComputeSettings(device=device), adapter=part.folder)
        return encoded.ids, encoded.fields, forward.score(encoded, _TOKENS_PER_BATCH)
    return *golden_inputs(golden), _logits_of(golden)


def _logits_of(golden: Golden) -> Logits:
    return np.array([row.logits for row in golden.rows], dtype=np.float32)


def _check_golden(
    folder: Path, recipe: Recipe, golden: tuple[Sequence[Any], Sequence[Any], Logits], device: str, quantization: str
) -> float:
    """Load what was written as inference does, write its golden rows, and return how far they are from the adapter's.

    Raises
    ------
    GoldenError
        If that is above the tolerance.
    """
    with hardware.current_device(device):
        forward = assemble(folder, recipe, ComputeSettings(device=device), adapter=None)
        ids, fields, expected = golden
        difference = float(np.abs(softmax(forward(ids, fields)) - softmax(expected)).max())
        allowed = TOLERANCES[TOLERANCE[quantization]]
        if not difference <= allowed:
            raise GoldenError(
                f"the merged model's probabilities differ by {difference:.3f} from the adapter's on its golden rows, "
                f"more than {allowed} (quantization {quantization}); nothing was written"
            )
        rows = make_encoder(folder, recipe).encode(golden_battles())
        number_format = hardware.dtype_name(hardware.resolve_dtype("auto", device))
        write_golden(folder, rows, forward.score(rows, _TOKENS_PER_BATCH), number_format)
    return difference
