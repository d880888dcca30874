"""What a choice scorer is made of: checked before it is loaded, and told apart from every other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsys_ensemble.encoding.choice_prompts import make_wordings
from lmsys_ensemble.encoding.truncation import POLICIES
from lmsys_ensemble.errors import CheckError, ConfigError, collected
from lmsys_ensemble.settings import suggest

if TYPE_CHECKING:
    from lmsys_ensemble.scorers.choice import ChoiceScorer

CALIBRATIONS = ("none", "contextual")
MAX_TOKENS = 2**17
"""Longest sequence that may be asked for; no language model reads more of a battle to any use."""


def check_choice_settings(scorer: "ChoiceScorer") -> None:
    """Raise `ConfigError` if prompts, labels, calibration or length cannot be."""
    make_wordings(scorer.prompts, scorer.labels)
    if scorer.calibration not in CALIBRATIONS:
        raise ConfigError(f"unknown calibration {scorer.calibration!r}{suggest(scorer.calibration, CALIBRATIONS)}")
    if scorer.truncation not in POLICIES:
        raise ConfigError(f"unknown truncation {scorer.truncation!r}; known: {', '.join(POLICIES)}")
    if not isinstance(scorer.max_tokens, int) or not 1 <= scorer.max_tokens <= MAX_TOKENS:
        raise ConfigError(f"max_tokens must be a whole number from 1 to {MAX_TOKENS:,}, got {scorer.max_tokens!r}")


def check_choice_scorer(scorer: "ChoiceScorer") -> None:
    """Check settings, base, adapter, tokenizer and labels; what has not been fetched yet is left out.

    Raises
    ------
    CheckError
        Lists all that is wrong.
    """
    from lmsys_ensemble.bases.sources import locate_base
    from lmsys_ensemble.modeling import inspection
    from lmsys_ensemble.modeling.choices import load_settings
    from lmsys_ensemble.modeling.language import language_adapter_faults, language_base_faults
    from lmsys_ensemble.modeling.settings import ComputeSettings

    faults = list(inspection.setting_faults(scorer.compute))
    with collected(faults):
        check_choice_settings(scorer)
    settings_hold = not faults
    base: Path | None = None
    with collected(faults):
        base = locate_base(scorer.model, scorer.revision)
    plain = load_settings(ComputeSettings(device="cpu", dtype="float32"), soft_capping=scorer.soft_capping is not False)
    of_base: list[str] = []
    if base is not None:
        of_base.extend(language_base_faults(base, plain))
        of_base.extend(
            [] if of_base else inspection.stored_faults(base, scorer.compute.quantization, scorer.compute.merge)
        )
        if settings_hold:
            with collected(of_base):
                scorer.encoder(base)
    faults.extend(of_base)
    if scorer.adapter:
        faults.extend(language_adapter_faults(Path(scorer.adapter), None if of_base else base, plain))
    if faults:
        raise CheckError(faults)


def fingerprint_choices(scorer: "ChoiceScorer", base: Path) -> dict[str, Any]:
    """Return all that can change a choice scorer's result beyond rounding, as values that JSON can hold."""
    from lmsys_ensemble.compute.hardware import dtype_name, list_devices, resolve_dtype
    from lmsys_ensemble.modeling.choices import CONTENT_FREE
    from lmsys_ensemble.modeling.digests import SCORING_GENERATION, adapter_identity, base_digest

    device = list_devices()[0] if scorer.device == "auto" else scorer.device
    compute = scorer.compute
    encoder = scorer.encoder(base)
    return {
        "class": f"{type(scorer).__module__}:{type(scorer).__qualname__}",
        "generation": SCORING_GENERATION,
        "model": None if Path(scorer.model).is_dir() else str(scorer.model),  # a folder is told by its digest
        "revision": scorer.revision,
        "base_digest": base_digest(base),
        "adapter": adapter_identity(Path(scorer.adapter)) if scorer.adapter else None,
        "questions": [question.name for question in encoder.questions],
        "label_ids": [list(question.label_ids) for question in encoder.questions],
        "encoding": scorer.encoding_digest(base),
        "calibration": None if scorer.calibration == "none" else [scorer.calibration, *CONTENT_FREE],
        "soft_capping": scorer.soft_capping is not False,
        "dtype": dtype_name(resolve_dtype(compute.dtype, device)),
        "quantization": compute.quantization,
        "attn_implementation": compute.attn_implementation,
        "merge": compute.merge,
        "unpack": compute.unpack,
    }
