"""What a classifier is made of: checked before it is loaded, and told apart from every other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsys_ensemble.errors import CheckError, ConfigError, ModelError, collected
from lmsys_ensemble.files import read_object
from lmsys_ensemble.modeling.golden import GOLDEN_FILE, OTHER_BASE_TOLERANCE
from lmsys_ensemble.modeling.recipe import SHAPE_KEYS, Recipe, dequantized_from, read_recipe
from lmsys_ensemble.settings import suggest

if TYPE_CHECKING:
    from lmsys_ensemble.scorers.classifier import ClassifierScorer
    from lmsys_ensemble.scorers.model import ModelScorer

OTHER_BASES = ("refuse", "measure")
"""What becomes of a base whose weights are not those that an adapter was trained on."""


def check_classifier(scorer: "ClassifierScorer") -> None:
    """Check settings, recipe, base, adapter and tokenizer; what has not been fetched yet is left out.

    Raises
    ------
    CheckError
        Lists all that is wrong.
    """
    from lmsys_ensemble.bases.sources import locate_base
    from lmsys_ensemble.modeling import inspection

    faults = list(inspection.setting_faults(scorer.compute))
    if scorer.other_base not in OTHER_BASES:
        faults.append(f"unknown other_base {scorer.other_base!r}{suggest(str(scorer.other_base), OTHER_BASES)}")
    recipe: Recipe | None = None
    base: Path | None = None
    with collected(faults):
        recipe = scorer.recipe()
        recipe.get_template()
    with collected(faults):
        base = locate_base(scorer.model, scorer.revision or (recipe.base_model.revision if recipe else None))
    of_base = _base_faults(scorer, base, recipe) if base is not None and recipe is not None else []
    faults.extend(of_base)
    if scorer.adapter:
        faults.extend(inspection.adapter_faults(Path(scorer.adapter), None if of_base else base, recipe))
    if faults:
        raise CheckError(faults)


def _base_faults(scorer: "ClassifierScorer", base: Path, recipe: Recipe) -> list[str]:
    from lmsys_ensemble.modeling import inspection

    faults = list(inspection.base_faults(base, recipe, head_follows=scorer.adapter is not None))
    faults.extend(
        inspection.stored_faults(base, scorer.compute.quantization, scorer.compute.merge) if not faults else []
    )
    if (base / "config.json").is_file():
        with collected(faults):
            check_base_identity(scorer, base, recipe)
    with collected(faults):
        scorer.encoder(base, recipe)
    return faults


def check_base_identity(scorer: "ClassifierScorer", base: Path, recipe: Recipe) -> None:
    """Raise `ConfigError` if a scorer's class does not take the base model, or the recipe names another.

    Other weights of the same shape are told where the recipe names the GGUF file that the base was dequantised from.
    """
    config = read_object(base / "config.json") if (base / "config.json").is_file() else {}
    if scorer.model_types and config.get("model_type") not in scorer.model_types:
        raise ConfigError(
            f"{type(scorer).__name__} takes {', '.join(scorer.model_types)}; {scorer.model} is a "
            f"{config.get('model_type')!r} model. Use ClassifierScorer"
        )
    named = recipe.base_model
    shape = {key: getattr(named, key) for key in SHAPE_KEYS}
    other = [
        f"{key} {config.get(key)} instead of {value}"
        for key, value in shape.items()
        if value is not None and config.get(key) != value
    ]
    if other:
        raise ConfigError(f"{scorer.model} is not the base model of {scorer.adapter}, {named.name}: {', '.join(other)}")
    if is_other_base(base, recipe):
        _check_other_base(scorer, base, recipe)


def is_other_base(base: Path, recipe: Recipe) -> bool:
    """Tell whether a recipe names the GGUF file that its base was dequantised from, and `base` comes from elsewhere."""
    return recipe.base_model.gguf_sha256 not in (None, dequantized_from(base))


def _check_other_base(scorer: "ClassifierScorer", base: Path, recipe: Recipe) -> None:
    """Refuse a base of other weights, unless it is to be measured and there is something to measure it by."""
    named = recipe.base_model
    found = dequantized_from(base)
    holds = "other weights" if found is None else f"those of the file {found[:12]}…"
    told = (
        f"{scorer.recipe_folder} was trained on {named.name}, weights dequantised from the GGUF file with sha256 "
        f"{str(named.gguf_sha256)[:12]}…; {scorer.model} holds {holds}"
    )
    if scorer.other_base != "measure":
        raise ConfigError(
            f"{told}. Give that base, or other_base='measure': the model is then loaded and used if the probabilities "
            f"of its golden rows differ by at most {OTHER_BASE_TOLERANCE}"
        )
    if not (scorer.recipe_folder / GOLDEN_FILE).is_file():
        raise ConfigError(f"{told}, and without {GOLDEN_FILE} there is nothing to measure the difference by")


def weights_in_memory(scorer: "ModelScorer") -> str:
    """Return what a model's weights are once they are loaded, in the words of ``quantization``.

    "none" also where the model has not been fetched yet, or cannot be read: checking and loading tell that.
    """
    from lmsys_ensemble.bases.sources import locate_base
    from lmsys_ensemble.modeling.prequantized import stored_quantization

    if scorer.compute.quantization != "none":
        return scorer.compute.quantization
    try:
        recipe = read_recipe(Path(scorer.adapter or scorer.model), verify=False)
        base = locate_base(scorer.model, scorer.revision or (recipe.base_model.revision if recipe else None))
        stored = stored_quantization(base) if base is not None else None
    except (ConfigError, ModelError):
        return "none"
    return "none" if stored is None else stored.counts_as


def fingerprint_model(scorer: "ModelScorer", base: Path) -> dict[str, Any]:
    """Return what can change the result of any scorer with a model: base, adapter, number formats."""
    from lmsys_ensemble.compute.hardware import dtype_name, list_devices, resolve_dtype
    from lmsys_ensemble.modeling.digests import SCORING_GENERATION, adapter_identity, base_digest

    device = list_devices()[0] if scorer.device == "auto" else scorer.device
    compute = scorer.compute
    return {
        "class": f"{type(scorer).__module__}:{type(scorer).__qualname__}",
        "generation": SCORING_GENERATION,
        "model": None if Path(scorer.model).is_dir() else str(scorer.model),  # a folder is told by its digest
        "revision": scorer.revision,
        "base_digest": base_digest(base),
        "adapter": adapter_identity(Path(scorer.adapter)) if scorer.adapter else None,
        "dtype": dtype_name(resolve_dtype(compute.dtype, device)),
        "quantization": compute.quantization,
        "attn_implementation": compute.attn_implementation,
        "merge": compute.merge,
        "unpack": compute.unpack,
    }


def fingerprint_classifier(scorer: "ClassifierScorer", base: Path, recipe: Recipe) -> dict[str, Any]:
    """Return all that can change a classifier's result beyond rounding, as values that JSON can hold."""
    told = recipe.model_dump(mode="json", exclude={"training", "validation", "files"})
    if Path(scorer.model).is_dir() and told["base_model"]["name"] == str(scorer.model):
        told["base_model"]["name"] = None  # its digest says what it is, wherever it lies
    return {**fingerprint_model(scorer, base), "recipe": told, "encoding": scorer.encoding_digest(base, recipe)}
