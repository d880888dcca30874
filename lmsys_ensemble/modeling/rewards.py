"""Reward models: how a conversation is written for one, and putting it together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lmsys_ensemble.encoding.label_tokens import continue_text
from lmsys_ensemble.encoding.rewards import Frame, RewardEncoder, Slot
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.chat import beginning, render_messages
from lmsys_ensemble.modeling.loading import load_tokenizer
from lmsys_ensemble.modeling.recipe import BaseModelRecipe, Recipe, TemplateRecipe

PLAIN_TURN = ("<prompt>: ", "\n\n<response>: ")
"""What stands before a user's text and a response where there is no chat template: the template ``turns``, of one
response."""

_SEPARATOR = "\n\n"
_ROLES = ("user", "assistant")


@dataclass(frozen=True)
class Writing:
    """How conversations are written; as `lmsys_ensemble.RewardScorer` has it.

    Parameters
    ----------
    chat, chat_options, bos, eos, max_tokens
        As there.
    """

    chat: bool | None
    chat_options: Mapping[str, Any]
    bos: bool | None
    eos: bool | None
    max_tokens: int


def make_reward_encoder(base: Path, writing: Writing) -> RewardEncoder:
    """Load a base model's tokenizer and return an encoder of conversations.

    Raises
    ------
    ModelError
        If the folder holds no fast tokenizer.
    ConfigError
        If the settings do not fit the tokenizer, its chat template or `max_tokens`.
    """
    tokenizer = load_tokenizer(base)
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if writing.chat and not has_template:
        raise ConfigError("the tokenizer has no chat template; leave chat out, or give a model that was made to chat")
    in_chat = has_template if writing.chat is None else writing.chat
    make_frame: Callable[[int], Frame]
    if in_chat:
        make_frame = partial(chat_frame, tokenizer, writing.chat_options)
    else:
        begin = tuple(beginning(tokenizer, writing.bos))
        make_frame = partial(plain_frame, begin, _ending(tokenizer, writing.eos))
    return RewardEncoder(tokenizer.backend_tokenizer, make_frame, max_tokens=writing.max_tokens)


def plain_frame(begin: tuple[int, ...], end: tuple[int, ...], n_turns: int) -> Frame:
    """Return what stands around the texts of a conversation without a chat template, given its first and last ids."""
    slots = [Slot((), (_SEPARATOR if turn and not role else "") + PLAIN_TURN[role]) for turn, role in _places(n_turns)]
    return Frame((Slot(begin, slots[0].words), *slots[1:]), end)


def chat_frame(tokenizer: Any, options: Mapping[str, Any], n_turns: int) -> Frame:
    """Return what a tokenizer's chat template puts around the texts of a conversation, which ends with a response.

    The template is rendered around marks and never sees a battle.

    Raises
    ------
    ConfigError
        If the template cannot be rendered, or loses, repeats or reorders a message.
    """
    marks = [f"\u27e6{role} {turn}\u27e7" for turn, role in _places(n_turns)]
    literals = _render_around(tokenizer, options, marks)
    trims = _find_trims(literals, _render_around(tokenizer, options, [f" {mark} " for mark in marks]))
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = False  # here they are the template's own
    slots = [
        _split_control(backend, literal, trim, is_first=not number)
        for number, (literal, trim) in enumerate(zip(literals[:-1], trims, strict=True))
    ]
    return Frame(tuple(slots), tuple(continue_text(backend, literals[-1])))


def _places(n_turns: int) -> list[tuple[int, int]]:
    return [(turn, role) for turn in range(n_turns) for role in range(len(_ROLES))]


def _render_around(tokenizer: Any, options: Mapping[str, Any], texts: list[str]) -> list[str]:
    """Return what the chat template writes before each text, and behind the last."""
    messages = [{"role": _ROLES[number % 2], "content": text} for number, text in enumerate(texts)]
    left = render_messages(tokenizer, messages, options, add_generation_prompt=False)
    found = []
    for text in [text.strip() for text in texts]:
        if left is None or left.count(text) != 1:
            raise ConfigError(
                f"the chat template of this tokenizer cannot be filled with a conversation of {len(texts) // 2} turns"
                f"{'' if left is None else ': it loses, repeats or reorders a message'}; set chat=False"
            )
        before, left = left.split(text)
        found.append(before)
    return [*found, left or ""]


def _find_trims(literals: list[str], padded: list[str]) -> list[bool]:
    """Tell for every text whether the template takes blanks off it, from what it writes around texts with blanks."""
    trims: list[bool] = []
    for literal, found in zip(literals[:-1], padded, strict=False):
        behind_the_last = "" if not trims or trims[-1] else " "
        trims.append(found == behind_the_last + literal)
    return trims


def _split_control(tokenizer: Tokenizer, literal: str, trim: bool, *, is_first: bool) -> Slot:
    """Cut a template's words behind their last control token."""
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    encoding = tokenizer.encode(literal, add_special_tokens=False)
    ends = [end for token, (_, end) in zip(encoding.ids, encoding.offsets, strict=True) if token in special]
    end = ends[-1] if ends else 0
    control = tokenizer.encode(literal[:end], add_special_tokens=False).ids if is_first else None
    return Slot(tuple(continue_text(tokenizer, literal[:end]) if control is None else control), literal[end:], trim)


def _ending(tokenizer: Any, eos: bool | None) -> tuple[int, ...]:
    token = tokenizer.eos_token_id
    if eos and token is None:
        raise ConfigError("the tokenizer has no eos token; set eos=False")
    return () if token is None or eos is False else (token,)


def reward_recipe(base: str, *, max_tokens: int = 2048, soft_capping: bool = True) -> Recipe:
    """Return what stands in for a recipe where a model with one output is loaded and checked.

    Its single class is none that a recipe file may state, so that the check of classes is left out.
    """
    return Recipe.model_construct(
        base_model=BaseModelRecipe(name=base),
        template=TemplateRecipe(name="turns"),
        max_tokens=max_tokens,
        classes=("reward",),
        soft_capping=soft_capping,
    )
