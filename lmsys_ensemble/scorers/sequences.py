"""What scorers have in common that make several sequences of a battle, as their settings say, without a recipe."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.errors import CheckError, ConfigError, collected
from lmsys_ensemble.scorers.base import Costs
from lmsys_ensemble.scorers.model import ModelScorer, costs_by_battle

if TYPE_CHECKING:
    from lmsys_ensemble.modeling.digests import EncoderLike

MAX_TOKENS = 2**17
"""Longest sequence that may be asked for; no language model reads more of a battle to any use."""


EncoderType = TypeVar("EncoderType", bound="EncoderLike")


class SequencesScorer(ModelScorer, Generic[EncoderType]):
    """A scorer whose encoder follows from a base model and from settings; see `ModelScorer` for the rest."""

    max_tokens: int

    def __init__(self) -> None:
        super().__init__()
        self._encoder: EncoderType | None = None
        self._encoder_key = ""

    @abstractmethod
    def _encoder_maker(self) -> tuple[str, Callable[[Path], EncoderType]]:
        """Return what tells the settings of an encoder apart, and a function that makes one for a base model."""

    def _base_folder(self) -> Path:
        from lmsys_ensemble.bases.sources import resolve_base

        return resolve_base(self.model, self.revision)

    def encoder(self, base: Path) -> EncoderType:
        """Return the encoder of a base model and these settings, made once; large tokenizers take seconds."""
        from lmsys_ensemble.modeling.tokenization import tokenizer_key

        settings, make = self._encoder_maker()
        with self._encoding:
            key = f"{tokenizer_key(base)} {settings}"
            if self._encoder is None or self._encoder_key != key:
                self._encoder, self._encoder_key = make(base), key
            return self._encoder

    def encoding_digest(self, base: Path) -> str:
        """Return a hash of the token ids that the scorer makes of a few battles."""
        from lmsys_ensemble.modeling.digests import encoding_digest

        with self._encoding:
            return encoding_digest(self.encoder(base))

    def _encode(self, battles: Battles) -> Encoded:
        return (self._encoder or self.encoder(self._base_folder())).encode(battles)

    def costs(self, battles: Battles) -> Costs:
        """Return tokens, operations and memory, from the tokenizer and the model's configuration."""
        return costs_by_battle(self, self.encode(battles), self._base_folder(), len(battles))


def check_max_tokens(value: object) -> None:
    """Raise `ConfigError` unless a longest sequence is a number of tokens that a model could read."""
    if not isinstance(value, int) or not 1 <= value <= MAX_TOKENS:
        raise ConfigError(f"max_tokens must be a whole number from 1 to {MAX_TOKENS:,}, got {value!r}")


def check_parts(
    scorer: SequencesScorer[EncoderType],
    check_settings: Callable[[], None],
    base_faults: Callable[[Path], list[str]],
    adapter_faults: Callable[[Path, Path | None], list[str]],
) -> None:
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
        check_settings()
    settings_hold = not faults
    base: Path | None = None
    with collected(faults):
        base = locate_base(scorer.model, scorer.revision)
    of_base: list[str] = []
    if base is not None:
        of_base.extend(base_faults(base))
        of_base.extend(
            [] if of_base else inspection.stored_faults(base, scorer.compute.quantization, scorer.compute.merge)
        )
        if settings_hold:
            with collected(of_base):
                scorer.encoder(base)
    faults.extend(of_base)
    if scorer.adapter:
        faults.extend(adapter_faults(Path(scorer.adapter), None if of_base else base))
    if faults:
        raise CheckError(faults)
