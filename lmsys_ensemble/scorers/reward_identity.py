"""What a reward scorer is made of: checked before it is loaded, and told apart from every other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsys_ensemble.blending.links import Link
from lmsys_ensemble.errors import CheckError, ConfigError, collected
from lmsys_ensemble.modeling.recipe import Recipe

if TYPE_CHECKING:
    from lmsys_ensemble.scorers.reward import RewardScorer


def check_reward_settings(scorer: "RewardScorer") -> None:
    """Raise `ConfigError` if link or length cannot be."""
    Link(scorer.link, scorer.scale, scorer.tie)
    if not isinstance(scorer.max_tokens, int) or scorer.max_tokens < 1:
        raise ConfigError(f"max_tokens must be a whole number above 0, got {scorer.max_tokens!r}")


def recipe_of(scorer: "RewardScorer") -> Recipe:
    """Return what stands in for a recipe where the model is loaded and checked."""
    from lmsys_ensemble.modeling.rewards import reward_recipe

    return reward_recipe(scorer.model, max_tokens=scorer.max_tokens, soft_capping=scorer.soft_capping is not False)


def check_reward_scorer(scorer: "RewardScorer") -> None:
    """Check settings, base, adapter and tokenizer; what has not been fetched yet is left out.

    Raises
    ------
    CheckError
        Lists all that is wrong.
    """
    from lmsys_ensemble.bases.sources import locate_base
    from lmsys_ensemble.modeling import inspection

    faults = list(inspection.setting_faults(scorer.compute))
    with collected(faults):
        check_reward_settings(scorer)
    settings_hold = not faults
    recipe = recipe_of(scorer)
    base: Path | None = None
    with collected(faults):
        base = locate_base(scorer.model, scorer.revision)
    of_base: list[str] = []
    if base is not None:
        of_base.extend(inspection.base_faults(base, recipe, head_follows=scorer.adapter is not None))
        of_base.extend(
            [] if of_base else inspection.stored_faults(base, scorer.compute.quantization, scorer.compute.merge)
        )
        if settings_hold:
            with collected(of_base):
                scorer.encoder(base)
    faults.extend(of_base)
    if scorer.adapter:
        faults.extend(inspection.adapter_faults(Path(scorer.adapter), None if of_base else base, recipe))
    if faults:
        raise CheckError(faults)


def fingerprint_rewards(scorer: "RewardScorer", base: Path) -> dict[str, Any]:
    """Return all that can change a reward scorer's result beyond rounding, as values that JSON can hold."""
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
        "encoding": scorer.encoding_digest(base),
        "link": [scorer.link, scorer.scale, scorer.tie],
        "soft_capping": scorer.soft_capping is not False,
        "dtype": dtype_name(resolve_dtype(compute.dtype, device)),
        "quantization": compute.quantization,
        "attn_implementation": compute.attn_implementation,
        "merge": compute.merge,
        "unpack": compute.unpack,
    }
