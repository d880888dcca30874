"""The contract of a scorer."""

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.progress import NoProgress as NoProgress
from lmsys_ensemble.progress import Progress as Progress
from lmsys_ensemble.schema import THREE_WAY, Task


@dataclass(frozen=True)
class Costs:
    """What scoring some battles will cost, as far as it can be told without loading a model.

    Attributes
    ----------
    tokens : ndarray of shape (n_rows,)
        Tokens per row, after truncation.
    flops : ndarray of shape (n_rows,) or None
        Operations per row of a forward pass.
    n_truncated : int
        Rows that are cut.
    weight_bytes : int or None
        Memory of the model's weights.
    """

    tokens: NDArray[np.intp]
    flops: NDArray[np.float64] | None = None
    n_truncated: int = 0
    weight_bytes: int | None = None


class Scorer(ABC):
    """Turns battles into logits.

    A subclass's constructor takes its settings by keyword, stores each under its own name and does nothing else;
    `load` does the work. `lmsys_ensemble.check_scorer` tells whether a subclass keeps the contract.

    Attributes
    ----------
    name : str
        What bars, errors and tables call the scorer.
    device : str
        ``cpu``, ``cuda:0`` and so on, or ``auto``.
    task : Task
        Classes, in the order of the logits' columns.
    progress : Progress
        Told how far `score` is.

    Examples
    --------
    A scorer that prefers the longer answer:

    >>> import numpy as np
    >>> class LongerWins(Scorer):
    ...     def __init__(self, name="longer", device="cpu"):
    ...         self.name = name
    ...         self.device = device
    ...     def score(self, battles):
    ...         rows = [(len("".join(b.response_a)), len("".join(b.response_b)), 0) for b in battles]
    ...         return np.log1p(np.array(rows, dtype=np.float32))
    """

    name: str
    device: str = "cpu"
    task: Task = THREE_WAY
    progress: Progress = NoProgress()

    needs_device: ClassVar[bool] = False
    """Whether it needs a device and threads of its own; False for scorers that compute next to nothing."""

    reads_texts: ClassVar[bool] = True
    """Whether logits come from the texts; False for scorers that look them up by id, which swapping does not change."""

    path_settings: ClassVar[tuple[str, ...]] = ()
    """Settings that may be paths; configuration files state them relative to their own folder."""

    neutral_settings: ClassVar[tuple[str, ...]] = ()
    """Settings that change no result beyond rounding, such as a batch size; `fingerprint` may leave them out."""

    shareable: ClassVar[bool] = False
    """Whether several threads of one device may call `score` at the same time, once the scorer is loaded."""

    @abstractmethod
    def score(self, battles: Battles) -> Logits:
        """Return float32 logits of shape (n_rows, n_classes) in the order of `battles`.

        A row that cannot be scored gets NaN; the runtime lists it, and blends what the other scorers say of it.
        """

    def prepare(self, battles: Battles) -> Any:
        """Return what `score_prepared` takes; the runtime calls it in another thread while the device computes.

        By default the battles themselves. A scorer that tokenises does it here.
        """
        return battles

    def score_prepared(self, prepared: Any) -> Logits:
        """Return what `score` does, for what `prepare` returned."""
        return self.score(prepared)

    def costs(self, battles: Battles) -> Costs | None:
        """Return what scoring will cost, or None where that is not known; nothing is loaded but a tokenizer."""
        return None

    def replica(self) -> Self:
        """Return another scorer with the same settings, not loaded, for another device."""
        return type(self)(**self.settings())

    def check(self, battles: Battles | None = None) -> None:  # noqa: B027 - many scorers have nothing to check
        """Raise what is wrong with settings and files, as far as it can be told without loading weights.

        Called before anything is loaded, and by ``lmsys-ensemble validate``; nothing is fetched from a network. Where
        several things are wrong, `lmsys_ensemble.errors.CheckError` lists them all. `battles` is what is to be scored,
        where that is known already. By default nothing is checked.
        """

    def load(self, device: str | None = None) -> None:  # noqa: B027 - many scorers have nothing to load
        """Get ready to score on `device` (by default the scorer's own); may take minutes and gigabytes."""

    def close(self) -> None:  # noqa: B027
        """Free all that `load` took; the scorer can be loaded again."""

    def fingerprint(self) -> dict[str, Any]:
        """Return all that can change a result, as values that JSON can hold."""
        return {"class": f"{type(self).__module__}:{type(self).__qualname__}", **self.settings()}

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments, as they are stored."""
        names = [name for name in inspect.signature(type(self)).parameters if name != "self"]
        return {name: getattr(self, name) for name in names}

    def __reduce__(self) -> Any:
        """Copy and pickle settings only: whoever gets the copy loads it where it is."""
        return _restore, (type(self), self.settings())

    def __enter__(self) -> Self:
        self.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings().items() if v is not None)})"


def _restore(kind: type[Scorer], settings: dict[str, Any]) -> Scorer:
    return kind(**settings)
