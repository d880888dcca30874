"""What stands around the texts of a battle: the tokenizer's own chat template, or plain words.

A chat template is a program of the model's folder (Jinja). transformers renders it in its sandbox, and it never sees
a battle: it is rendered once, around a mark, and the texts are encoded apart from what it wrote.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from lmsys_ensemble.encoding.choice_prompts import Wording, make_wordings
from lmsys_ensemble.encoding.choices import ChoiceEncoder, Question
from lmsys_ensemble.encoding.label_tokens import continue_text, find_label_tokens
from lmsys_ensemble.encoding.truncation import Policy
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.loading import load_tokenizer

_TEXTS, _ANSWER = "\u27e6texts\u27e7", "\u27e6answer\u27e7"
"""Marks in whose place the texts of a battle and the answer come; brackets that no template has."""


@dataclass(frozen=True)
class Frame:
    """What stands around the texts of a battle.

    Parameters
    ----------
    before, after : str
        With control tokens written out.
    blank : bool or None
        Whether the answer begins with a blank, where the template says so.
    """

    before: str
    after: str
    blank: bool | None = None


def plain_frame(wording: Wording) -> Frame:
    """Return system prompt, question and cue as plain text."""
    return Frame(f"{wording.system}\n\n" if wording.system else "", wording.question + wording.plain_cue)


def chat_frame(tokenizer: Any, wording: Wording, options: Mapping[str, Any]) -> Frame:
    """Return what a tokenizer's chat template puts around the texts of a battle.

    Where the template takes no system prompt (Gemma 2), it stands at the beginning of the user's message.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        With a chat template.
    wording : Wording
        System prompt, question and the cue that the answer begins with.
    options : mapping
        Further arguments of the template, such as ``enable_thinking``.

    Raises
    ------
    ConfigError
        If the template cannot be rendered, or loses or repeats the user's message.
    """
    user = f"{_TEXTS}{wording.question}"
    apart = [{"role": "system", "content": wording.system}, {"role": "user", "content": user}]
    joined = [{"role": "user", "content": f"{wording.system}\n\n{user}"}]
    if not wording.system:
        apart = joined = [{"role": "user", "content": user}]
    messages, text = apart, render_messages(tokenizer, apart, options)
    if text is None or wording.system not in text:
        messages, text = joined, render_messages(tokenizer, joined, options)
    if text is None or text.count(_TEXTS) != 1 or wording.question.strip() not in text:
        raise ConfigError(
            f"the chat template of this tokenizer cannot be filled with {wording.name}"
            f"{'' if text is None else ': it loses or repeats the user message'}; set chat=False"
        )
    before, after = text.split(_TEXTS)
    answered = [*messages, {"role": "assistant", "content": f"{wording.chat_cue}{_ANSWER}"}]
    whole = render_messages(tokenizer, answered, options, add_generation_prompt=False) or ""
    between = whole.removeprefix(text).split(_ANSWER)[0] if whole.startswith(text) and _ANSWER in whole else None
    if between is None or between.strip() != wording.chat_cue.strip():
        return Frame(before, after + wording.chat_cue)
    if wording.chat_cue:
        return Frame(before, after + between)
    return Frame(before, after, blank=between.startswith(" "))


def render_messages(
    tokenizer: Any, messages: list[dict[str, str]], options: Mapping[str, Any], *, add_generation_prompt: bool = True
) -> str | None:
    """Return what a tokenizer's chat template writes for messages; None where it refuses."""
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **options
        )
    except (TemplateError, TypeError, ValueError):  # templates raise the first on purpose, the others by mistake
        return None
    return str(text)


def make_questions(
    tokenizer: Any, wordings: list[Wording], *, chat: bool | None, bos: bool | None, options: Mapping[str, Any]
) -> list[Question]:
    """Tokenise what stands around the texts of a battle, and find the labels' tokens.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        The model's.
    wordings : list of Wording
        What to ask.
    chat : bool, optional
        Whether to use the chat template; by default where there is one.
    bos : bool, optional
        Whether a plain prompt begins with the tokenizer's beginning token; by default where the tokenizer itself puts
        it there. A chat template writes its own.
    options : mapping
        Further arguments of the template.

    Raises
    ------
    ConfigError
        If there is no chat template but one is asked for, or a label is not one token.
    """
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if chat and not has_template:
        raise ConfigError("the tokenizer has no chat template; leave chat out, or give a model that was made to chat")
    in_chat = has_template if chat is None else chat
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = False  # here they are the template's own
    questions = []
    for wording in wordings:
        frame = chat_frame(tokenizer, wording, options) if in_chat else plain_frame(wording)
        before = list(backend.encode(frame.before, add_special_tokens=False).ids)
        questions.append(
            Question(
                wording.name,
                wording.template,
                (*([] if in_chat else beginning(tokenizer, bos)), *before),
                tuple(continue_text(backend, frame.after)),
                find_label_tokens(backend, frame.after, wording.labels, name=wording.name, blank=frame.blank),
            )
        )
    return questions


def beginning(tokenizer: Any, bos: bool | None) -> list[int]:
    """Return what a prompt without a chat template begins with: the beginning token, by default as the tokenizer does.

    Raises
    ------
    ConfigError
        If `bos` asks for a token that there is not.
    """
    token = tokenizer.bos_token_id
    if bos and token is None:
        raise ConfigError("the tokenizer has no bos token; set bos=False")
    own = tokenizer.backend_tokenizer.encode("a").ids
    wanted = token is not None and token in own[:1] if bos is None else bos
    return [token] if wanted else []


@dataclass(frozen=True)
class Asking:
    """How battles become questions; as `lmsys_ensemble.ChoiceScorer` has it.

    Parameters
    ----------
    prompts, labels, chat, chat_options, bos, max_tokens, truncation
        As there.
    """

    prompts: Any
    labels: Any
    chat: bool | None
    chat_options: Mapping[str, Any]
    bos: bool | None
    max_tokens: int
    truncation: Policy


def make_choice_encoder(base: Path, asking: Asking) -> ChoiceEncoder:
    """Load a base model's tokenizer and return an encoder of questions.

    Raises
    ------
    ModelError
        If the folder holds no fast tokenizer.
    ConfigError
        If the questions do not fit the tokenizer or `max_tokens`.
    """
    tokenizer = load_tokenizer(base)
    questions = make_questions(
        tokenizer,
        make_wordings(asking.prompts, asking.labels),
        chat=asking.chat,
        bos=asking.bos,
        options=asking.chat_options,
    )
    return ChoiceEncoder(
        tokenizer.backend_tokenizer, questions, max_tokens=asking.max_tokens, truncation=asking.truncation
    )
