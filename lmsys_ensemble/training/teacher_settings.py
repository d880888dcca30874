"""What is learned from teachers: their files, and how much each term of the loss counts."""

from typing import Literal, Self

from pydantic import Field, model_validator

from lmsys_ensemble.settings import Settings


class TeacherSettings(Settings):
    """A teacher: what it says of the rows that are learned from.

    Parameters
    ----------
    file : str
        Table with the column ``id`` and one column a class (``winner_model_a``, ``winner_model_b``, ``winner_tie``),
        beside the data files. It covers every row that is learned from and may hold others. A teacher that has been
        trained on these rows is too sure of them: out-of-fold predictions (``oof.parquet`` of a training with folds)
        teach better.
    values : {"probabilities", "logits"}
        What the file holds.
    weight : float
        Share of this teacher beside the others'.
    unseen : bool
        True for a teacher that has learned from none of the rows. A training with folds warns of a teacher where this
        is False and the file has no column ``fold``, as out-of-fold predictions have.
    """

    file: str = Field(min_length=1)
    values: Literal["probabilities", "logits"] = "probabilities"
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    unseen: bool = False


class TermSettings(Settings):
    """How much each term counts; the loss is their weighted sum over the sum of the weights.

    Parameters
    ----------
    hard : float
        Cross-entropy with the row's own labels, smoothed where the recipe says so.
    soft : float
        Cross-entropy with the teachers' mean, times the squared temperature.
    kl : float
        Kullback-Leibler divergence from the teachers' mean to the student, times the squared temperature. It is
        ``soft`` less the teachers' entropy: the gradient is the same, and it is 0 where the student agrees.
    cosine : float
        One less the cosine of what student and teacher say, averaged over the teachers.
    """

    hard: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    soft: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    kl: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    cosine: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if not self.total:
            raise ValueError("all terms weigh 0; give one of hard, soft, kl and cosine a weight above 0")
        return self

    @property
    def total(self) -> float:
        """Sum of the weights."""
        return self.hard + self.soft + self.kl + self.cosine


class DistillationSettings(Settings):
    """Learning from teachers (Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network").

    With the temperature T, the student's logits z and the teachers' mean p at that temperature, a row's ``kl`` term is
    ``T**2 * sum(p * (log(p) - log_softmax(z / T)))``. The square makes up for gradients that shrink by 1 / T**2, so
    that the weights of the terms keep their meaning (section 2 of that paper).

    The default, (hard + 2 kl + 2 cosine) / 5 at temperature 1 with cosines of probabilities, is the loss of the
    winners of the Chatbot Arena competition in their published code: a divergence and a cosine for each of their two
    teachers. The mean of the divergences differs from the divergence to the mean only by a constant, which has no
    gradient.

    Hidden states of teachers are not compared, and the published code of the winners does not compare them either: its
    cosine is of probabilities. A cosine needs vectors of one width, and their teachers have 8,192 values a token
    (Llama-3-70B, Qwen2-72B), their student 3,584 (Gemma-2-9B).

    Parameters
    ----------
    teachers : list of TeacherSettings
        At least one.
    temperature : float
        Above 1, what teachers say of the unlikely classes counts more.
    mean : {"probabilities", "logits"}
        What is averaged to the teachers' mean: probabilities at the temperature (default), or logits (a normalised
        geometric mean, which is surer where teachers agree).
    terms : TermSettings
        Weights of the terms.
    cosine_of : {"probabilities", "logits"}
        What the cosine compares: probabilities at the temperature, or logits less their mean over the classes.
    """

    teachers: list[TeacherSettings] = Field(min_length=1)
    temperature: float = Field(default=1.0, gt=0, le=100)
    mean: Literal["probabilities", "logits"] = "probabilities"
    terms: TermSettings = TermSettings(hard=1, kl=2, cosine=2)
    cosine_of: Literal["probabilities", "logits"] = "probabilities"

    @model_validator(mode="after")
    def _teachers_count(self) -> Self:
        if not any(teacher.weight for teacher in self.teachers):
            raise ValueError("all teachers weigh 0; give one of them a weight above 0")
        files = [teacher.file for teacher in self.teachers]
        twice = sorted({file for file in files if files.count(file) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named more than once; raise its weight instead")
        return self
