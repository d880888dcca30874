"""Scorer that lets a reward model score each response, and makes probabilities of the two rewards."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.blending.links import Link
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.rewards import RewardEncoder, canonical_order
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.progress import GroupedProgress
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY, Task
from lmsys_ensemble.scorers import reward_identity
from lmsys_ensemble.scorers.sequences import SequencesScorer

if TYPE_CHECKING:
    from lmsys_ensemble.modeling.forward import ForwardPass


class RewardScorer(SequencesScorer[RewardEncoder]):
    """A scalar reward model: each response gets a reward on its own, a link makes A, B and tie of the two.

    The model is a sequence classifier with one output (``num_labels=1``), as reward models on the Hub and those of
    TRL's ``RewardTrainer`` are. It reads the conversation with response A, then that with response B; beginnings that
    both share are computed once, and so are responses that are the same. Neither order nor the other response counts,
    so that swapped responses give swapped probabilities: a second pass over swapped battles says nothing new.

    Scale and tie are fitted on labelled rows by `lmsys_ensemble.fit_link`. With Davidson's link, the temperature and
    the tie bias of a fitted `lmsys_ensemble.Blender` do the same, and neither has to be known here.

    Parameters
    ----------
    model : str
        Reward model: a local folder or a name on the Hub; or, with `adapter`, its base (a bundled model, too).
    adapter : str, optional
        PEFT folder with LoRA weights and a head of one output (``SEQ_CLS``).
    revision : str, optional
        Commit of a model on the Hub; needed there.
    name : str, optional
        What errors and tables call it; by default the adapter's or the model's folder.
    device, quantization, dtype, attn_implementation, merge, unpack, tokens_per_batch : optional
        How it computes, as for `lmsys_ensemble.ClassifierScorer`.
    soft_capping : bool, optional
        False switches Gemma-2's soft-capping off, for a model that was trained without.
    link : {"davidson", "rao-kupper", "bradley-terry"}
        What makes probabilities of rewards, see `lmsys_ensemble.blending.links`. ``bradley-terry`` knows no ties and
        makes a two-way task.
    scale : float
        Factor of the rewards, above 0.
    tie : float
        Davidson: logit of a tie between equal rewards; Rao and Kupper: logarithm of the threshold. Left out of
        account by ``bradley-terry``.
    chat : bool, optional
        Whether the tokenizer's chat template is used; by default where there is one. Without it, turns are written as
        ``<prompt>: ...`` and ``<response>: ...``, as in the template ``turns``.
    chat_options : mapping, optional
        Further arguments of the chat template. Templates that write today's date (Llama 3.1 and later) make other
        sequences every day unless ``date_string`` is given.
    bos : bool, optional
        Whether a sequence without a chat template begins with the beginning token; by default as the tokenizer does.
    eos : bool, optional
        Whether a sequence without a chat template ends with the end token; by default where there is one.
    max_tokens : int
        Longest sequence. Only the texts are cut (``balanced``, see `lmsys_ensemble.encoding.truncation`), never the
        control tokens around them.
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
        link: str = "davidson",
        scale: float = 1.0,
        tie: float = 0.0,
        chat: bool | None = None,
        chat_options: Mapping[str, Any] | None = None,
        bos: bool | None = None,
        eos: bool | None = None,
        max_tokens: int = 2048,
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
        self.link = link
        self.scale = scale
        self.tie = tie
        self.chat = chat
        self.chat_options = chat_options
        self.bos = bos
        self.eos = eos
        self.max_tokens = max_tokens
        self.tokens_per_batch = tokens_per_batch

    @property
    def task(self) -> Task:  # type: ignore[override]
        """Classes, as the link has them."""
        return TWO_WAY if self.link == "bradley-terry" else THREE_WAY

    def load(self, device: str | None = None) -> None:
        """Load reward model, adapter and tokenizer.

        Raises
        ------
        ConfigError
            If a setting cannot be.
        ModelError
            If weights are missing or do not fit: of a model that is no reward model, the head.
        DeviceError
            If there is no such device.
        """
        super().load(device)

    def _assemble(self, compute: ComputeSettings) -> "ForwardPass":
        from lmsys_ensemble.modeling.assembly import assemble

        reward_identity.check_reward_settings(self)
        self.progress.phase("fetching")
        folder = self._base_folder()
        self.progress.phase("loading")
        self.encoder(folder)
        adapter = Path(self.adapter) if self.adapter else None
        return assemble(folder, reward_identity.recipe_of(self), compute, adapter=adapter)

    def check(self, battles: Battles | None = None) -> None:
        """Check settings, base, adapter and tokenizer without loading weights or fetching anything.

        Raises
        ------
        CheckError
            Lists all that is wrong.
        """
        if self._forward is None:
            reward_identity.check_reward_scorer(self)

    def _encoder_maker(self) -> tuple[str, Callable[[Path], RewardEncoder]]:
        from lmsys_ensemble.modeling.rewards import Writing, make_reward_encoder

        writing = Writing(self.chat, self.chat_options or {}, self.bos, self.eos, self.max_tokens)
        return str(writing), lambda base: make_reward_encoder(base, writing)

    def rewards(self, battles: Battles) -> NDArray[np.float32]:
        """Return the rewards of both responses, of shape (n_rows, 2); NaN where one could not be scored.

        Raises
        ------
        ScoringError
            If the scorer is not loaded.

        Examples
        --------
        Fitting the link on labelled rows:

        >>> rewards = scorer.rewards(parse_battles(table))  # doctest: +SKIP
        >>> link = fit_link(rewards[:, 0], rewards[:, 1], parse_labels(table))  # doctest: +SKIP
        >>> fitted = RewardScorer("folder", link=link.kind, scale=link.scale, tie=link.tie)  # doctest: +SKIP
        """
        forward = self._loaded()
        prepared = self.encode(battles)
        return self._rewards(forward, prepared) if len(prepared) else np.empty((0, 2), dtype=np.float32)

    def _rewards(self, forward: "ForwardPass", prepared: Encoded) -> NDArray[np.float32]:
        order = canonical_order(prepared.ids)
        ordered = Encoded(
            [prepared.ids[row] for row in order],
            [prepared.fields[row] for row in order],
            prepared.row_ids,
            [prepared.totals[row] for row in order],
        )
        scored = forward.score(ordered, self.tokens_per_batch, GroupedProgress(self.progress, 2))
        rewards = np.empty(len(order), dtype=np.float32)
        rewards[order] = scored[:, 0]
        return rewards.reshape(-1, 2)

    def _logits(self, forward: "ForwardPass", prepared: Encoded) -> Logits:
        rewards = self._rewards(forward, prepared)
        result: Logits = Link(self.link, self.scale, self.tie).logits(*rewards.T).astype(np.float32)
        return result

    def fingerprint(self) -> dict[str, Any]:
        """Return base model, adapter, link, the way to token ids, number formats: all that can change a result.

        Left out is what only rounds otherwise: the device, the batch size, versions of torch and transformers.
        """
        return reward_identity.fingerprint_rewards(self, self._base_folder())
