"""What scorers have in common that run a model on a device of their own."""

import gc
import threading
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmsys_ensemble.compute.capacity import BYTES_PER_WEIGHT, read_shape
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.errors import InputError, ScoringError
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.scorers import identity
from lmsys_ensemble.scorers.base import Costs, Scorer

if TYPE_CHECKING:
    from lmsys_ensemble.modeling.forward import ForwardPass


class ModelScorer(Scorer):
    """A scorer with a model: token ids are made ahead, by another thread; `close` frees the device's memory.

    A subclass makes token ids in `_encode` and the forward pass in `_assemble`. Its constructor calls this one's before
    it stores the settings.
    """

    needs_device: ClassVar[bool] = True
    path_settings: ClassVar[tuple[str, ...]] = ("model", "adapter")
    neutral_settings: ClassVar[tuple[str, ...]] = ("tokens_per_batch",)

    model: str
    adapter: str | None
    revision: str | None
    quantization: str
    tokens_per_batch: int | None

    def __init__(self) -> None:
        self._forward: ForwardPass | None = None
        self._device = ""
        self._shares: tuple[tuple[str, str | None, str], bool] | None = None
        self._encoding = threading.RLock()  # no two threads may share a tokenizer

    @abstractmethod
    def _encode(self, battles: Battles) -> Encoded:
        """Return token ids; the caller holds the lock of the tokenizer."""

    @abstractmethod
    def _assemble(self, compute: ComputeSettings) -> "ForwardPass":
        """Return the forward pass on a device, which is the current one."""

    @property
    def compute(self) -> ComputeSettings:
        """Where and in which number formats it computes; passed on as one object."""
        return ComputeSettings.of(self)

    @property
    def shareable(self) -> bool:  # type: ignore[override]
        """Whether several threads may score at once: not with quantised layers, which keep state as they run."""
        key = (self.model, self.revision, self.quantization)
        if self._shares is None or self._shares[0] != key:  # a run counts on the same answer
            self._shares = key, identity.weights_in_memory(self) == "none"
        return self._shares[1]

    def load(self, device: str | None = None) -> None:
        """Load model, adapter and tokenizer.

        Raises
        ------
        ConfigError
            If settings contradict the model or each other.
        ModelError
            If weights are missing or do not fit.
        DeviceError
            If there is no such device.
        """
        from lmsys_ensemble.compute import hardware
        from lmsys_ensemble.modeling.warming import warm_up

        asked = device or self.device
        self._device = hardware.check_device(hardware.list_devices()[0] if asked == "auto" else asked)
        with hardware.current_device(self._device):
            forward = self._assemble(replace(self.compute, device=self._device))
            warm_up(forward, self.tokens_per_batch)
        self._forward = forward

    def encode(self, battles: Battles) -> Encoded:
        """Return token ids and the account of what was cut, without loading the model's weights.

        Raises
        ------
        InputError
            If `battles` are not `Battles`; `lmsys_ensemble.parse_battles` makes them of a table.
        """
        if not isinstance(battles, Battles):
            raise InputError(
                f"encode takes Battles, got type {type(battles).__name__}; write encode(parse_battles(table))"
            )
        with self._encoding:
            return self._encode(battles)

    def prepare(self, battles: Battles) -> Encoded:
        """Return token ids, as `encode` does."""
        return self.encode(battles)

    def score(self, battles: Battles) -> Logits:
        """Return float32 logits of shape (n_rows, n_classes) in the order of `battles`.

        Raises
        ------
        ScoringError
            If the scorer is not loaded.
        """
        self._loaded()
        return self.score_prepared(self.prepare(battles))

    def score_prepared(self, prepared: Encoded) -> Logits:
        """Return what `score` does, for token ids."""
        forward = self._loaded()
        if not len(prepared):
            return np.empty((0, self.task.n_classes), dtype=np.float32)
        return self._logits(forward, prepared)

    def _logits(self, forward: "ForwardPass", prepared: Encoded) -> Logits:
        """Return logits of at least one row."""
        return forward.score(prepared, self.tokens_per_batch, self.progress)

    def _loaded(self) -> "ForwardPass":
        if self._forward is None:
            raise ScoringError(f"{self.name} is not loaded; call load(), or use it in a with statement")
        return self._forward

    def close(self) -> None:
        """Free the model's memory."""
        if self._forward is None:
            return
        from lmsys_ensemble.compute.hardware import free_memory

        self._forward = None
        gc.collect()
        free_memory(self._device)


def costs_by_battle(scorer: ModelScorer, encoded: Encoded, base: Path, n_battles: int) -> Costs:
    """Return what scoring will cost where every battle is several sequences, one behind the other.

    Parameters
    ----------
    scorer : ModelScorer
        Whose number formats count.
    encoded : Encoded
        Equally many sequences for every battle.
    base : Path
        Folder of the base model, of which only the configuration is read.
    n_battles : int
        Number of battles.
    """
    shape = read_shape(base)
    weights = identity.weights_in_memory(scorer)
    number_format = weights if weights in BYTES_PER_WEIGHT else scorer.compute.dtype
    by_battle = (n_battles, len(encoded) // max(n_battles, 1))
    return Costs(
        encoded.lengths.reshape(by_battle).sum(axis=1),
        None if shape is None else shape.flops(encoded.lengths).reshape(by_battle).sum(axis=1),
        int(encoded.retention["truncated"].to_numpy().reshape(by_battle).any(axis=1).sum()),
        None if shape is None else shape.weight_bytes(number_format if number_format != "auto" else "float16"),
    )
