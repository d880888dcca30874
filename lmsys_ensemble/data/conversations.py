"""Conversations as lists of messages or as transcripts, split into the turns of a battle."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmsys_ensemble.data.battles import Turns

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_USERS, _ASSISTANTS = {"user", "human", "prompter"}, {"assistant", "gpt", "bot"}


class UnusableRow(Exception):
    """A conversation that is no battle; says why."""


def split_messages(messages: object) -> tuple[Turns, Turns]:
    """Return the user's and the assistant's turns of a list of messages, each with ``role`` and ``content``.

    The list may be written as JSON, as in a CSV. A system message at the beginning becomes that of the first prompt.

    Raises
    ------
    UnusableRow
        If it is no such list, or user and assistant do not take turns.
    """
    if isinstance(messages, str):
        messages = _parsed(messages)
    if not isinstance(messages, list | tuple | np.ndarray) or not len(messages):
        raise UnusableRow(f"expected a list of messages, got {type(messages).__name__}")
    spoken = [_message(message) for message in messages]
    system = ""
    if spoken[0][0] == "system":
        system = f"{spoken.pop(0)[1]}\n\n"
    prompts, answers = _alternating(spoken)
    return (system + prompts[0], *prompts[1:]), answers


def split_transcript(text: object) -> tuple[Turns, Turns]:
    r"""Return the turns of a transcript like ``\n\nHuman: Hi.\n\nAssistant: Hello.``.

    Raises
    ------
    UnusableRow
        If the text is no transcript, or the two do not take turns.

    Examples
    --------
    >>> split_transcript("\n\nHuman: Hi.\n\nAssistant: Hello.")
    (('Hi.',), ('Hello.',))
    """
    if not isinstance(text, str):
        raise UnusableRow(f"expected a transcript, got {type(text).__name__}")
    before, *parts = _SPEAKER.split(text)
    if before.strip() or not parts:
        raise UnusableRow("the transcript does not begin with 'Human: '")
    roles = ["user" if name == "Human" else "assistant" for name in parts[::2]]
    return _alternating([(role, content.strip()) for role, content in zip(roles, parts[1::2], strict=True)])


def same_prompt(one: tuple[Turns, Turns], other: tuple[Turns, Turns]) -> tuple[Turns, Turns, Turns]:
    """Return prompt and both responses of two conversations with the same user.

    Raises
    ------
    UnusableRow
        If the user says different things in the two.
    """
    if one[0] != other[0]:
        raise UnusableRow("the user's turns differ between the two conversations")
    return one[0], one[1], other[1]


def chosen_is_a(prompt: Turns, chosen: Turns, rejected: Turns) -> bool:
    """Decide in which order a chosen and a rejected response stand, so that the order tells nothing of the label.

    The texts decide, not their roles, so that it is the same every time.
    """
    return _digest(prompt, chosen) <= _digest(prompt, rejected)


def _digest(prompt: Turns, response: Turns) -> bytes:
    return hashlib.blake2b(json.dumps([prompt, response]).encode(), digest_size=16).digest()


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableRow(f"expected a list of messages, got text that is no JSON: {text!r:.40}") from error


def _message(message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise UnusableRow(f"expected messages with role and content, got {type(message).__name__}")
    role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
    if not isinstance(role, str):
        raise UnusableRow("a message has no role")
    if content is not None and not isinstance(content, str):
        raise UnusableRow(f"the content of a message is {type(content).__name__}, expected text")
    return role.lower(), content or ""


def _alternating(spoken: Sequence[tuple[str, str]]) -> tuple[Turns, Turns]:
    roles: list[Any] = [
        "user" if role in _USERS else "assistant" if role in _ASSISTANTS else role for role, _ in spoken
    ]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise UnusableRow("user and assistant do not take turns, the user first and the assistant last")
    contents = [content for _, content in spoken]
    return tuple(contents[::2]), tuple(contents[1::2])
