"""What a lexical model is fitted as."""

from typing import Literal

from pydantic import Field

from lmsys_ensemble.schema import Task, task_of
from lmsys_ensemble.settings import Settings

ModelKind = Literal["auto", "logistic", "boosted"]


class LexicalSettings(Settings):
    """How a lexical model is fitted.

    ``logistic`` is a multinomial regression; ``boosted`` averages it with LightGBM's trees, which need that package.
    ``auto`` takes ``boosted`` where lightgbm is installed. ``terms`` most frequent words make TF-IDF vectors, which are
    brought down to ``components`` numbers (0: none).
    """

    model: ModelKind = "auto"
    terms: int = Field(default=5000, ge=0, le=2**20)
    components: int = Field(default=16, ge=0, le=512)
    classes: int = Field(default=3, ge=2, le=3)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def task(self) -> Task:
        """The task with so many classes."""
        return task_of(self.classes)
