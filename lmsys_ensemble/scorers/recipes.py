"""Which recipe a classifier follows: the trained one, or one made of settings and defaults."""

import logging
from typing import TYPE_CHECKING, Any

from lmsys_ensemble.modeling.recipe import Recipe, check_contradictions, read_recipe
from lmsys_ensemble.settings import parse_settings

if TYPE_CHECKING:
    from lmsys_ensemble.scorers.classifier import ClassifierScorer

logger = logging.getLogger(__name__)


def trained_recipe(scorer: "ClassifierScorer", *, verify: bool) -> Recipe | None:
    """Return the recipe beside the adapter or the model, if there is one; `verify` compares the files' hashes."""
    return read_recipe(scorer.recipe_folder, verify=verify) if scorer.recipe_folder.is_dir() else None


def followed_recipe(scorer: "ClassifierScorer", *, warn: bool) -> Recipe:
    """Return the recipe that scoring follows.

    Parameters
    ----------
    scorer : ClassifierScorer
        Whose settings and folders.
    warn : bool
        Whether to warn where there is no trained recipe, so that template and length are assumed.

    Raises
    ------
    ConfigError
        If a setting contradicts the trained recipe.
    """
    trained = trained_recipe(scorer, verify=True)
    if trained is not None:
        check_contradictions(trained, _asked(scorer, trained), scorer.recipe_folder)
        return trained
    assumed = _assumed(scorer)
    logger.log(
        logging.WARNING if warn else logging.DEBUG,
        "%s: no recipe.json in %s; template %s and max_tokens %d are assumed to be what it was trained with",
        scorer.name,
        scorer.recipe_folder,
        assumed["template"]["name"],
        assumed["max_tokens"],
    )
    return parse_settings(Recipe, assumed, f"settings of scorer {scorer.name!r}")


def _asked(scorer: "ClassifierScorer", trained: Recipe) -> dict[str, Any]:
    """Return settings under the recipe's names; what was left out is None."""
    asked: dict[str, Any] = {
        "template.name": scorer.template,
        "max_tokens": scorer.max_tokens,
        "truncation": scorer.truncation,
        "special_tokens.bos": scorer.bos,
        "special_tokens.eos": scorer.eos,
        "special_tokens.pad_token_id": scorer.pad_token_id,
        "soft_capping": scorer.soft_capping,
    }
    if trained.base_model.revision is not None:  # where the recipe does not say, the setting is all there is
        asked["base_model.revision"] = scorer.revision
    return asked


def _assumed(scorer: "ClassifierScorer") -> dict[str, Any]:
    return {
        "base_model": {"name": scorer.model, "revision": scorer.revision},
        "template": {"name": scorer.template or scorer.default_template},
        "max_tokens": scorer.max_tokens or scorer.default_max_tokens,
        "truncation": scorer.truncation or "balanced",
        "special_tokens": {
            "bos": scorer.bos if scorer.bos is not None else True,
            "eos": scorer.eos if scorer.eos is not None else True,
            "pad_token_id": scorer.pad_token_id,
        },
        "soft_capping": scorer.soft_capping is not False,
    }
