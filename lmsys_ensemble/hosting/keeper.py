"""The part of an ensemble that keeps scorers loaded between calls and lets one call run at a time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.hosting.display import Display
from lmsys_ensemble.hosting.preloading import load_and_hold
from lmsys_ensemble.hosting.residence import let_go, still_used, wait_seconds
from lmsys_ensemble.scorers.base import Scorer

K = TypeVar("K", bound="Keeper")


class _Load:
    """One name for two things: ``Ensemble.load(folder)`` makes an ensemble, ``ensemble.load()`` loads its models."""

    @overload
    def __get__(self, ensemble: None, kind: type["K"]) -> "Callable[[str | Path], K]": ...
    @overload
    def __get__(self, ensemble: "K", kind: type["K"]) -> "Callable[[], K]": ...
    def __get__(self, ensemble: "K | None", kind: type["K"]) -> Any:
        return kind._from_folder if ensemble is None else ensemble._load_scorers


class Keeper:
    """Base of `lmsys_ensemble.Ensemble`: loading, freeing and copying; one call at a time.

    Attributes
    ----------
    scorers : list of Scorer
        The scorers that are loaded.
    progress : {"auto", "bars", "lines", "off"}
        How progress is shown.
    devices : sequence of str or None
        Devices that may be used.
    """

    scorers: list[Scorer]
    progress: Display
    devices: Sequence[str] | None

    def __init__(self) -> None:
        self._calls = threading.RLock()
        self._held: list[Scorer] = []

    @classmethod
    def from_config(cls, path: str | Path) -> Self:
        """Make one from a configuration file, or a folder that holds one."""
        raise NotImplementedError

    def check(self, battles: Battles | None = None, *, blend: bool = True, here: bool = True) -> None:
        """Find all that is wrong, as far as that can be told without loading weights."""
        raise NotImplementedError

    @classmethod
    def _from_folder(cls, folder: str | Path) -> Self:
        """Make an ensemble from a folder that `save` wrote."""
        return cls.from_config(folder)

    def _load_scorers(self, folder: str | Path | None = None) -> Self:
        """Load all scorers now, and keep them loaded from call to call until `close`.

        All of them must fit into memory together. A scorer that has changed since (a setting, an adapter's file,
        `devices`) is loaded anew by the next call; one that fails is freed, and loaded again when it is next needed.
        Scorers that look probabilities up in files read these anew in every call.

        Returns
        -------
        Ensemble
            Itself.

        Raises
        ------
        ConfigError
            If a folder is given: ``Ensemble.load(folder)`` makes an ensemble, this loads the one at hand. Or what
            `check` raises, before anything is loaded.
        DeviceError
            If a device is missing, its memory does not suffice, or a call that an earlier run left behind is there yet.
        EnsembleError
            If a scorer cannot be loaded; the others are freed.
        """
        if folder is not None:
            raise ConfigError(
                "ensemble.load() takes no folder: it loads this ensemble's scorers. Ensemble.load(folder) makes an "
                "ensemble of what save() wrote"
            )
        with self._calls:
            self.check(blend=False)
            load_and_hold(self.scorers, self, devices=self.devices, display=self.progress)
            self._held.extend(scorer for scorer in self.scorers if scorer not in self._held)
        return self

    load = _Load()

    def close(self) -> None:
        """Free what `load` has kept loaded; the ensemble can be used and loaded again.

        A scorer that another ensemble keeps loaded, too, stays. Waits for calls in other threads to end.
        """
        with self._calls:
            held, self._held = self._held, []  # not what `scorers` holds now: that may have been changed
            let_go(held, self)

    def __enter__(self) -> Self:
        self.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_calls", "_held")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Keeper.__init__(self)
        vars(self).update(state)

    @contextmanager
    def _turn(self, seconds: float | None) -> Iterator[None]:
        """Wait until calls in other threads have ended, for `seconds` at most where given, and keep others out.

        Raises
        ------
        DeviceError
            If one has not ended by then.
        """
        if not self._calls.acquire(timeout=-1 if seconds is None else wait_seconds(seconds)):
            raise still_used("this ensemble")
        try:
            yield
        finally:
            self._calls.release()
