"""A scorer that fails on demand, for tests of what surrounds scorers."""

import builtins
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from lmsys_ensemble import errors
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import ConfigError, ModelError
from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.testing.fake import FakeScorer

_HANG_SECONDS = 0.01
"""How long a hanging scorer sleeps before it asks again whether it is to stop."""


class FaultyScorer(FakeScorer):
    """The logits of a `FakeScorer` with the same seed, until something goes wrong as it was told to.

    Rows are counted from 0, over all calls of `score`, as they are handed in. Rows of a call that come before the one
    at fault are scored and reported. A fault that is tied to a row happens once: the count goes on, so that a second
    attempt passes. The fingerprint leaves out faults that change no logits, so that a run which one of them ended can
    be resumed without it.

    Configuration files may name it (``type: faulty``) only where the environment variable ``LMSYS_ENSEMBLE_FAULTS`` is
    1, so that no file of somebody else's can kill a process.

    Parameters
    ----------
    seed, scale, seconds_per_row, n_classes, name, device
        As for `FakeScorer`.
    raise_at : int, optional
        Row at which an error is raised.
    error : str
        Which: a builtin exception or one of this library's, by name.
    out_of_memory_above : int, optional
        Characters (prompts and responses) above which a call raises `MemoryError`, every time.
    nan_for : str, optional
        Rows whose prompt contains this get NaN, silently.
    hang_at : int, optional
        Row at which nothing goes on until the run is stopped, which is for ever where nobody can stop it.
    die_at : int, optional
        Row at which the process is killed, with no chance to clean up.
    fail_load : bool
        Whether `load` raises `ModelError`.

    Examples
    --------
    >>> from lmsys_ensemble.testing.check import example_battles
    >>> scorer = FaultyScorer(seed=1, raise_at=2, error="ZeroDivisionError")
    >>> scorer.score(example_battles()[:2]).shape
    (2, 3)
    >>> scorer.score(example_battles()[2:])
    Traceback (most recent call last):
    ZeroDivisionError: faulty was told to fail at row 2
    """

    neutral_settings: ClassVar[tuple[str, ...]] = (
        *FakeScorer.neutral_settings, "raise_at", "error", "out_of_memory_above", "hang_at", "die_at", "fail_load",
    )  # fmt: skip

    def __init__(
        self,
        seed: int = 0,
        *,
        raise_at: int | None = None,
        error: str = "RuntimeError",
        out_of_memory_above: int | None = None,
        nan_for: str | None = None,
        hang_at: int | None = None,
        die_at: int | None = None,
        fail_load: bool = False,
        scale: float = 1.0,
        seconds_per_row: float = 0.0,
        n_classes: int = 3,
        name: str = "faulty",
        device: str = "cpu",
    ):
        super().__init__(
            seed, scale=scale, seconds_per_row=seconds_per_row, n_classes=n_classes, name=name, device=device
        )
        self.raise_at = raise_at
        self.error = error
        self.out_of_memory_above = out_of_memory_above
        self.nan_for = nan_for
        self.hang_at = hang_at
        self.die_at = die_at
        self.fail_load = fail_load
        self._n_rows = 0
        self._counting = threading.Lock()

    def load(self, device: str | None = None) -> None:
        """Do nothing, or fail.

        Raises
        ------
        ConfigError
            If `error` names no exception.
        ModelError
            If told to.
        """
        _error_named(self.error)
        if self.fail_load:
            raise ModelError(f"{self.name} was told not to load")

    def score(self, battles: Battles) -> Logits:
        """Return logits of shape (n_rows, n_classes), or fail as told.

        Raises
        ------
        Exception
            What `error` names.
        MemoryError
            If the texts are longer than `out_of_memory_above` together.
        """
        self._check_memory(battles)
        with self._counting:
            start = self._n_rows
            self._n_rows += len(battles)
        faults: tuple[tuple[int | None, Callable[[], None]], ...] = (
            (self.raise_at, self._raise),
            (self.hang_at, self._hang),
            (self.die_at, _die),
        )
        due = [(row - start, fault) for row, fault in faults if row is not None and start <= row < start + len(battles)]
        if due:
            n_before, fault = min(due, key=lambda entry: entry[0])
            if n_before:
                super().score(battles[:n_before])
            fault()
        logits = super().score(battles)
        if self.nan_for is not None:
            logits[[any(self.nan_for in turn for turn in prompt) for prompt in battles.prompts]] = np.nan
        return logits

    def fingerprint(self) -> dict[str, Any]:
        """Return what can change a result: of the faults only `nan_for`."""
        left_out = set(self.neutral_settings) - set(FakeScorer.neutral_settings)
        return {key: value for key, value in super().fingerprint().items() if key not in left_out}

    def _check_memory(self, battles: Battles) -> None:
        if self.out_of_memory_above is None:
            return
        n_characters = sum(len(turn) for battle in battles for turn in _turns(battle))
        if n_characters > self.out_of_memory_above:
            raise MemoryError(
                f"{self.name} was told to run out of memory above {self.out_of_memory_above} characters, "
                f"got {n_characters}"
            )

    def _raise(self) -> None:
        raise _error_named(self.error)(f"{self.name} was told to fail at row {self.raise_at}")

    def _hang(self) -> None:
        while True:
            time.sleep(_HANG_SECONDS)
            self.progress.advance(0, 0)


def _turns(battle: Any) -> tuple[str, ...]:
    return (*battle.prompt, *battle.response_a, *battle.response_b)


def _error_named(name: str) -> type[BaseException]:
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise ConfigError(f"error={name!r} names no exception; give a builtin one or one of lmsys_ensemble.errors")
    return kind


def _die() -> None:
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)
