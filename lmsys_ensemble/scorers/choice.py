"""Scorer that asks a language model which response is better, and reads the probabilities of its next token."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.choice_prompts import parse_labels
from lmsys_ensemble.encoding.choices import ChoiceEncoder
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.encoding.truncation import Policy
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.probabilities import Logits, log_softmax
from lmsys_ensemble.progress import GroupedProgress
from lmsys_ensemble.schema import Task, task_of
from lmsys_ensemble.scorers import choice_identity
from lmsys_ensemble.scorers.sequences import SequencesScorer

if TYPE_CHECKING:
    from lmsys_ensemble.modeling.forward import ForwardPass


class ChoiceScorer(SequencesScorer[ChoiceEncoder]):
    """A causal language model as a judge: its next token's probabilities, renormalised over the labels.

    The model reads a prompt and two responses, is asked which is better, and is not made to write anything: what it
    would answer is read off its output for the tokens of the labels alone. No training is needed; a LoRA adapter that
    was trained for the question makes it better. Raw probabilities of small models say little before a temperature
    and class biases are fitted on labelled rows (`lmsys_ensemble.Blender`).

    With several prompts or sets of labels every battle is asked in all ways, and the logarithms of the probabilities
    are averaged: each wording has a bias of its own for some labels, a factor of the probabilities, and what is added
    in logarithms can be corrected after averaging as well as before.

    Parameters
    ----------
    model : str
        Language model: a local folder, a bundled model (``bundled:smollm2-135m-instruct``), or a name on the Hub.
    adapter : str, optional
        PEFT folder with LoRA weights for the language model (``CAUSAL_LM``).
    revision : str, optional
        Commit of a model on the Hub; needed there.
    name : str, optional
        What errors and tables call it; by default the adapter's or the model's folder.
    device, quantization, dtype, attn_implementation, merge, unpack, tokens_per_batch : optional
        How it computes, as for `lmsys_ensemble.ClassifierScorer`. The labels' rows of the output matrix are not
        quantised.
    soft_capping : bool, optional
        False switches Gemma-2's soft-capping off.
    prompts : str, mapping, or a list of these, optional
        What is asked: names of built-in prompts (``verdict``, ``brackets``), or entries of
        `lmsys_ensemble.encoding.choice_prompts.ChoicePrompt` (``system``, ``question``...), in which ``{a}``, ``{b}``
        and ``{tie}`` stand for the labels. By default ``verdict``.
    labels : sequence of str, or a list of such sequences, optional
        Answers for A wins, B wins and tie, by default A, B, tie; each must be one token. Two labels make a two-way
        task. Several sets are averaged.
    chat : bool, optional
        Whether the tokenizer's chat template is used; by default where there is one.
    chat_options : mapping, optional
        Further arguments of the chat template, such as ``enable_thinking: false``. Templates that write today's date
        (Llama 3.1 and later) make other prompts every day unless ``date_string`` is given.
    bos : bool, optional
        Whether a prompt without a chat template begins with the beginning token; by default as the tokenizer does.
    calibration : {"none", "contextual"}
        ``contextual`` divides by the probabilities that the model gives to texts without content (Zhao et al.,
        Calibrate Before Use, 2021), which are computed when it is loaded.
    max_tokens : int
        Longest sequence. Only the texts of a battle are cut, never the question or the control tokens around them.
    truncation : {"balanced", "per_field", "tail"}
        How they are cut, see `lmsys_ensemble.encoding.truncation`.
    """

    def __init__(
        self,
        model: str,
        *,
        adapter: str | None = None,
        revision: str | None = None,
        name: str | None = None,
        device: str = "auto",
        quantization: str = "none",
        dtype: str = "auto",
        attn_implementation: str = "auto",
        soft_capping: bool | None = None,
        merge: bool | None = None,
        unpack: bool | None = None,
        prompts: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
        labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
        chat: bool | None = None,
        chat_options: Mapping[str, Any] | None = None,
        bos: bool | None = None,
        calibration: str = "none",
        max_tokens: int = 2048,
        truncation: Policy = "balanced",
        tokens_per_batch: int | None = None,
    ):
        super().__init__()
        self.model = model
        self.adapter = adapter
        self.revision = revision
        self.name = name or Path(adapter or model).name.removeprefix("bundled:")
        self.device = device
        self.quantization = quantization
        self.dtype = dtype
        self.attn_implementation = attn_implementation
        self.soft_capping = soft_capping
        self.merge = merge
        self.unpack = unpack
        self.prompts = prompts
        self.labels = labels
        self.chat = chat
        self.chat_options = chat_options
        self.bos = bos
        self.calibration = calibration
        self.max_tokens = max_tokens
        self.truncation = truncation
        self.tokens_per_batch = tokens_per_batch
        self._prior: NDArray[np.float64] | None = None

    @property
    def task(self) -> Task:  # type: ignore[override]
        """Classes, in the order of the labels."""
        return task_of(len(parse_labels(self.labels)[0]))

    def load(self, device: str | None = None) -> None:
        """Load language model, adapter and tokenizer, and ask without content where calibration is asked for.

        Raises
        ------
        ConfigError
            If a setting cannot be, or a label is not one token of this model's.
        ModelError
            If weights are missing or do not fit.
        DeviceError
            If there is no such device.
        """
        super().load(device)

    def _assemble(self, compute: ComputeSettings) -> "ForwardPass":
        from lmsys_ensemble.modeling.choices import assemble_choices, content_free_prior

        choice_identity.check_choice_settings(self)
        self.progress.phase("fetching")
        folder = self._base_folder()
        self.progress.phase("loading")
        encoder = self.encoder(folder)
        forward = assemble_choices(
            folder,
            compute,
            encoder.label_ids,
            adapter=Path(self.adapter) if self.adapter else None,
            soft_capping=self.soft_capping is not False,
        )
        with self._encoding:
            self._prior = None if self.calibration == "none" else content_free_prior(forward, encoder)
        return forward

    def check(self, battles: Battles | None = None) -> None:
        """Check settings, base, adapter, tokenizer and labels without loading weights or fetching anything.

        Raises
        ------
        CheckError
            Lists all that is wrong.
        """
        if self._forward is None:
            choice_identity.check_choice_scorer(self)

    def _encoder_maker(self) -> tuple[str, Callable[[Path], ChoiceEncoder]]:
        from lmsys_ensemble.modeling.chat import Asking, make_choice_encoder

        asking = Asking(
            self.prompts, self.labels, self.chat, self.chat_options or {}, self.bos, self.max_tokens, self.truncation
        )
        return str(asking), lambda base: make_choice_encoder(base, asking)

    def _logits(self, forward: "ForwardPass", prepared: Encoded) -> Logits:
        """Return logarithms of probabilities, averaged over the questions of every battle."""
        from lmsys_ensemble.modeling.choices import log_answers

        encoder = self._encoder or self.encoder(self._base_folder())
        progress = GroupedProgress(self.progress, len(encoder.questions))
        answers = log_answers(forward.score(prepared, self.tokens_per_batch, progress), encoder.columns)
        if self._prior is not None:
            answers = log_softmax(answers - self._prior)
        result: Logits = log_softmax(answers.mean(axis=1)).astype(np.float32)
        return result

    def fingerprint(self) -> dict[str, Any]:
        """Return base model, adapter, questions, labels, number formats: all that can change a result.

        Left out is what only rounds otherwise: the device, the batch size, versions of torch and transformers.
        """
        return choice_identity.fingerprint_choices(self, self._base_folder())
