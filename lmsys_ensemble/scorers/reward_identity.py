"""What a reward scorer is made of: checked before it is loaded, and told apart from every other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsys_ensemble.blending.links import Link
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.scorers.identity import fingerprint_model
from lmsys_ensemble.scorers.sequences import check_max_tokens, check_parts

if TYPE_CHECKING:
    from lmsys_ensemble.scorers.reward import RewardScorer


def check_reward_settings(scorer: "RewardScorer") -> None:
    """Raise `ConfigError` if link or length cannot be."""
    Link(scorer.link, scorer.scale, scorer.tie)
    check_max_tokens(scorer.max_tokens)


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
    from lmsys_ensemble.modeling import inspection

    recipe = recipe_of(scorer)
    check_parts(
        scorer,
        lambda: check_reward_settings(scorer),
        lambda base: list(inspection.base_faults(base, recipe, head_follows=scorer.adapter is not None)),
        lambda adapter, base: list(inspection.adapter_faults(adapter, base, recipe)),
    )


def fingerprint_rewards(scorer: "RewardScorer", base: Path) -> dict[str, Any]:
    """Return all that can change a reward scorer's result beyond rounding, as values that JSON can hold."""
    return {
        **fingerprint_model(scorer, base),
        "encoding": scorer.encoding_digest(base),
        "link": [scorer.link, scorer.scale, scorer.tie],
        "soft_capping": scorer.soft_capping is not False,
    }
