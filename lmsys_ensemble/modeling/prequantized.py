"""Base models that are stored quantised: what their ``config.json`` says, and what it takes to load them.

transformers' own quantisers do the work. This module looks before they run: whether the method is known, its packages
are installed and what is asked for agrees with it; and it keeps classification heads out of the quantised layers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lmsys_ensemble.errors import ConfigError, MissingDependencyError, ModelError
from lmsys_ensemble.modeling.checkpoints import HEAD_NAMES, check_base_config
from lmsys_ensemble.modeling.patterns import check_patterns
from lmsys_ensemble.modeling.tensorfiles import read_header

ENTRY = "quantization_config"

PACKAGES = {
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel",),
}
"""Methods that are loaded, and the modules that transformers imports for them."""

_INTEGERS = ("U8", "I8", "I32")


@dataclass(frozen=True)
class StoredQuantization:
    """How a base model's weights are stored.

    Parameters
    ----------
    method : str
        As ``config.json`` calls it.
    weights : {"nf4", "fp4", "int8", "none"}
        What the weights are in memory once they are loaded. Those of compressed-tensors are plain numbers (``none``):
        they are unpacked while they are loaded, because the packed forward pass calls layers and not the model, whose
        call would unpack them.
    bits : int or None
        Bits of a stored weight, where that is said.
    """

    method: str
    weights: str
    bits: int | None = None

    @property
    def counts_as(self) -> str:
        """Which of the quantisations that scorers offer comes closest: ``nf4``, ``int8`` or ``none``."""
        return "nf4" if self.weights == "fp4" else self.weights

    def __str__(self) -> str:
        bits = f"{self.bits}-bit " if self.bits else ""
        return f"{bits}{self.method}"


def stored_quantization(folder: Path) -> StoredQuantization | None:
    """Return how a base model's weights are stored; None if they are not quantised.

    Raises
    ------
    ModelError
        If ``config.json`` cannot be read, or states a method that is not loaded here.
    """
    values = _entry(check_base_config(folder))
    if values is None:
        return None
    if not isinstance(values, dict):
        raise ModelError(f"{folder}/config.json: {ENTRY} must be names with their values, got {str(values)[:40]!r}")
    if values.get("load_in_4bit"):
        kind = str(values.get("bnb_4bit_quant_type", "fp4"))
        if kind not in ("nf4", "fp4"):
            raise ModelError(f"{folder}/config.json: bnb_4bit_quant_type must be nf4 or fp4, got {kind[:40]!r}")
        return StoredQuantization("bitsandbytes", kind, 4)
    if values.get("load_in_8bit"):
        return StoredQuantization("bitsandbytes", "int8", 8)
    method = str(values.get("quant_method"))
    if method not in PACKAGES or method == "bitsandbytes":
        raise ModelError(
            f"{folder} is stored quantised by {method[:40]!r}, which is not supported; known: {', '.join(PACKAGES)}. "
            "Give the model before it was quantised"
        )
    if method == "compressed-tensors":
        return StoredQuantization(method, "none", _one_scheme(values, folder))
    bits = values.get("bits")
    if bits not in (2, 3, 4, 8):
        raise ModelError(f"{folder}/config.json: bits of {ENTRY} must be 2, 3, 4 or 8, got {str(bits)[:40]}")
    return StoredQuantization(method, "int8" if bits == 8 else "nf4", bits)


def _entry(config: Mapping[str, Any]) -> Any:
    text = config.get("text_config", {})
    return config.get(ENTRY) if config.get(ENTRY) is not None else text.get(ENTRY)


def _one_scheme(values: Mapping[str, Any], folder: Path) -> int | None:
    """Return the bits of the weights; transformers unpacks all of a model by one scheme, whatever it says."""
    groups = values.get("config_groups")
    if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
        raise ModelError(f"{folder}/config.json: {ENTRY} of compressed-tensors states no config_groups")
    schemes = [group.get("weights") for group in groups.values()]
    if any(scheme != schemes[0] for scheme in schemes) or not isinstance(schemes[0], dict):
        raise ModelError(
            f"{folder} is quantised by {len(schemes)} different schemes, which are not told apart when it is loaded; "
            "quantise all layers alike"
        )
    bits = schemes[0].get("num_bits")
    return bits if isinstance(bits, int) else None


def check_stored(folder: Path, quantization: str, merge: bool | None = None) -> StoredQuantization | None:
    """Return how a base model is stored, after making sure that it can be loaded as it is asked for.

    Parameters
    ----------
    folder : Path
        Base model.
    quantization : str
        What the scorer is asked for; "none" means "as it is stored".
    merge : bool, optional
        Whether LoRA weights are to be merged into the base.

    Raises
    ------
    ConfigError
        If something else is asked for than is stored.
    MissingDependencyError
        If a package is not installed.
    ModelError
        If the method is not supported, the head is quantised, or an expression in the configuration may take for ever.
    """
    stored = stored_quantization(folder)
    if stored is None:
        return None
    if quantization not in ("none", stored.weights):
        raise ConfigError(
            f"quantization={quantization!r} contradicts {folder}, whose weights are stored as {stored}. Leave "
            "quantization out: stored weights are loaded as they are"
        )
    if merge and stored.weights != "none":
        raise ConfigError(
            f"merge=True on a base that is stored as {stored} would round the update away; leave merge out"
        )
    missing = [name for name in PACKAGES[stored.method] if find_spec(name) is None]
    if missing:
        packages = " ".join(name.replace("_", "-") for name in missing)
        raise MissingDependencyError(
            f"{folder} is stored as {stored}; loading it needs {packages}, which is not installed: "
            f"pip install {packages}"
        )
    header = {key: entry for path in folder.glob("*.safetensors") for key, entry in read_header(path).items()}
    rounded = [key for key, entry in header.items() if _is_head_weight(key) and entry.dtype in _INTEGERS]
    if rounded:
        raise ModelError(
            f"{folder}: the classification head is quantised, too ({', '.join(rounded[:3])}); quantise the model again "
            "without it (llm_int8_skip_modules=['score'] for bitsandbytes)"
        )
    expressions = list(_expressions(_entry(check_base_config(folder))))
    names = sorted({key.rpartition(".")[0] for key in header})
    check_patterns([("match", text) for text in expressions], names, f"{folder}/config.json")
    return stored


def _is_head_weight(key: str) -> bool:
    return key.split(".")[0] in HEAD_NAMES and ".weight" in key


def _expressions(values: Any) -> Iterator[str]:
    """Yield all texts in lists, and the keys of ``dynamic``: what quantisers match against the names of modules."""
    if isinstance(values, dict):
        if isinstance(values.get("dynamic"), dict):
            yield from (str(key).removeprefix("+:").removeprefix("-:") for key in values["dynamic"])
        for value in values.values():
            yield from _expressions(value)
    elif isinstance(values, list):
        for value in values:
            if isinstance(value, str):
                yield value.removeprefix("re:")
            else:
                yield from _expressions(value)


def adapt_config(
    config: Any, stored: StoredQuantization, dtype_name: str, unquantized: Sequence[str] = HEAD_NAMES
) -> None:
    """Change a loaded configuration so that transformers quantises no head and computes in `dtype_name`.

    `unquantized` are the modules that count as heads.
    """
    holder = config if getattr(config, ENTRY, None) is not None else config.get_text_config()
    values = dict(getattr(holder, ENTRY))
    if stored.method == "bitsandbytes":
        kept = [*(values.get("llm_int8_skip_modules") or []), *unquantized]
        values["llm_int8_skip_modules"] = sorted(set(kept))
        if stored.bits == 4:
            values["bnb_4bit_compute_dtype"] = dtype_name
    elif stored.method == "compressed-tensors":
        values["dequantize"] = True
    setattr(holder, ENTRY, values)
