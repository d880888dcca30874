"""What a choice scorer is made of: checked before it is loaded, and told apart from every other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsys_ensemble.encoding.choice_prompts import make_wordings
from lmsys_ensemble.encoding.truncation import POLICIES
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.scorers.identity import fingerprint_model
from lmsys_ensemble.scorers.sequences import check_max_tokens, check_parts
from lmsys_ensemble.settings import suggest

if TYPE_CHECKING:
    from lmsys_ensemble.scorers.choice import ChoiceScorer

CALIBRATIONS = ("none", "contextual")


def check_choice_settings(scorer: "ChoiceScorer") -> None:
    """Raise `ConfigError` if prompts, labels, calibration or length cannot be."""
    make_wordings(scorer.prompts, scorer.labels)
    if scorer.calibration not in CALIBRATIONS:
        raise ConfigError(f"unknown calibration {scorer.calibration!r}{suggest(scorer.calibration, CALIBRATIONS)}")
    if scorer.truncation not in POLICIES:
        raise ConfigError(f"unknown truncation {scorer.truncation!r}; known: {', '.join(POLICIES)}")
    check_max_tokens(scorer.max_tokens)


def check_choice_scorer(scorer: "ChoiceScorer") -> None:
    """Check settings, base, adapter, tokenizer and labels; what has not been fetched yet is left out.

    Raises
    ------
    CheckError
        Lists all that is wrong.
    """
    from lmsys_ensemble.modeling.choices import load_settings
    from lmsys_ensemble.modeling.language import language_adapter_faults, language_base_faults
    from lmsys_ensemble.modeling.settings import ComputeSettings

    plain = load_settings(ComputeSettings(device="cpu", dtype="float32"), soft_capping=scorer.soft_capping is not False)
    check_parts(
        scorer,
        lambda: check_choice_settings(scorer),
        lambda base: list(language_base_faults(base, plain)),
        lambda adapter, base: list(language_adapter_faults(adapter, base, plain)),
    )


def fingerprint_choices(scorer: "ChoiceScorer", base: Path) -> dict[str, Any]:
    """Return all that can change a choice scorer's result beyond rounding, as values that JSON can hold."""
    from lmsys_ensemble.modeling.choices import CONTENT_FREE

    encoder = scorer.encoder(base)
    return {
        **fingerprint_model(scorer, base),
        "questions": [question.name for question in encoder.questions],
        "label_ids": [list(question.label_ids) for question in encoder.questions],
        "encoding": scorer.encoding_digest(base),
        "calibration": None if scorer.calibration == "none" else [scorer.calibration, *CONTENT_FREE],
        "soft_capping": scorer.soft_capping is not False,
    }
