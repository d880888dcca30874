"""Prompts that ask a language model which of two responses is better, and the labels it may answer with."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lmsys_ensemble.encoding.templates import Template
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.schema import TASKS
from lmsys_ensemble.settings import Settings, parse_settings, suggest

Labels: TypeAlias = tuple[str, ...]
"""The answers for A wins, B wins and, in a three-way task, tie."""

DEFAULT_LABELS = ("A", "B", "tie")
DEFAULT_PROMPT = "verdict"
PLACEHOLDERS = ("a", "b", "tie")


class ChoicePrompt(Settings):
    """What a language model is asked, in words; ``{a}``, ``{b}`` and ``{tie}`` stand for the labels.

    ``system`` comes first. Then, turn by turn, ``prompt``, ``response_a`` and ``response_b`` stand before the texts
    of a battle, and ``turn_separator`` between turns. ``question`` follows the texts (``question_without_tie`` in a
    two-way task). In a chat the model's answer begins with ``chat_cue``; a model without a chat template goes on
    after ``plain_cue``.
    """

    name: str
    version: int = 1
    system: str
    prompt: str
    response_a: str
    response_b: str
    turn_separator: str = "\n\n"
    question: str
    question_without_tie: str
    chat_cue: str = ""
    plain_cue: str = "\n\nAnswer:"


_PROMPTS = (
    ChoicePrompt(
        name="verdict",
        system="You judge fairly. You are shown a prompt and two responses to it, and say which response is better.",
        prompt="[Prompt]\n",
        response_a="\n\n[Response {a}]\n",
        response_b="\n\n[Response {b}]\n",
        question="\n\nWhich response is better? Answer {a} or {b}, or {tie} if both are equally good.",
        question_without_tie="\n\nWhich response is better? Answer {a} or {b}.",
    ),
    # The form of the pairwise prompt of MT-Bench (Zheng et al., 2023): the verdict stands in double brackets.
    ChoicePrompt(
        name="brackets",
        system=(
            "Act as an impartial judge and compare the answers of two AI assistants to a user's question. Look at "
            "helpfulness, relevance, accuracy, depth and level of detail. Neither the order nor the length of the "
            "answers may influence you."
        ),
        prompt="[User Question]\n",
        response_a="\n\n[The Start of Assistant {a}'s Answer]\n",
        response_b="\n\n[The Start of Assistant {b}'s Answer]\n",
        question=(
            '\n\nGive your verdict in this format: "[[{a}]]" if assistant {a} is better, "[[{b}]]" if assistant {b} is '
            'better, and "[[{tie}]]" for a tie.'
        ),
        question_without_tie=(
            '\n\nGive your verdict in this format: "[[{a}]]" if assistant {a} is better, and "[[{b}]]" if assistant '
            "{b} is better."
        ),
        chat_cue="[[",
        plain_cue="\n\nVerdict: [[",
    ),
)

CHOICE_PROMPTS = {prompt.name: prompt for prompt in _PROMPTS}
"""Built-in prompts by name."""


@dataclass(frozen=True)
class Wording:
    """A prompt with its labels put in.

    Parameters
    ----------
    name : str
        Prompt and labels, for errors.
    labels : tuple of str
        One per class.
    system, question, chat_cue, plain_cue : str
        As in `ChoicePrompt`.
    template : Template
        How the texts of a battle stand between system prompt and question.
    """

    name: str
    labels: Labels
    system: str
    template: Template
    question: str
    chat_cue: str
    plain_cue: str


def word(prompt: ChoicePrompt, labels: Labels) -> Wording:
    """Put labels into a prompt.

    Raises
    ------
    ConfigError
        If the prompt holds a placeholder that is none of `PLACEHOLDERS`, or ``{tie}`` in a two-way task.
    """
    known = dict(zip(PLACEHOLDERS, labels, strict=False))
    name = f"prompt {prompt.name!r} with labels {', '.join(labels)}"

    def fill(text: str) -> str:
        for placeholder in re.findall(r"\{(\w+)\}", text):
            if placeholder not in known:
                raise ConfigError(
                    f"{name}: there is nothing to put in for {{{placeholder}}} in {text[:60]!r}; known: "
                    f"{', '.join(f'{{{one}}}' for one in known)}"
                )
        return re.sub(r"\{(\w+)\}", lambda found: known[found[1]], text)

    return Wording(
        name,
        labels,
        fill(prompt.system),
        Template(
            prompt.name,
            prompt.version,
            "by_turn",
            fill(prompt.prompt),
            fill(prompt.response_a),
            fill(prompt.response_b),
            fill(prompt.turn_separator),
        ),
        fill(prompt.question if len(labels) == len(PLACEHOLDERS) else prompt.question_without_tie),
        fill(prompt.chat_cue),
        fill(prompt.plain_cue),
    )


def parse_prompts(prompts: Any) -> list[ChoicePrompt]:
    """Return the prompts that a setting names.

    Parameters
    ----------
    prompts : None, str, mapping, or a list of these
        Names of `CHOICE_PROMPTS`, or entries of `ChoicePrompt`; entries that are left out are those of the default.

    Raises
    ------
    ConfigError
        If a name or an entry is unknown.
    """
    entries = [DEFAULT_PROMPT] if prompts is None else prompts
    entries = [entries] if isinstance(entries, str | Mapping) else list(entries)
    if not entries:
        raise ConfigError("prompts is empty; leave it out for the default, or name at least one")
    return [_parse_prompt(entry, number) for number, entry in enumerate(entries, 1)]


def _parse_prompt(entry: Any, number: int) -> ChoicePrompt:
    if isinstance(entry, Mapping):
        basis = CHOICE_PROMPTS[DEFAULT_PROMPT].model_dump()
        return parse_settings(ChoicePrompt, {**basis, "name": f"own {number}", **entry}, "prompts of a choice scorer")
    if not isinstance(entry, str) or entry not in CHOICE_PROMPTS:
        raise ConfigError(f"unknown prompt {str(entry)[:60]!r}{suggest(str(entry), CHOICE_PROMPTS)}")
    return CHOICE_PROMPTS[entry]


def parse_labels(labels: Sequence[str] | Sequence[Sequence[str]] | None) -> list[Labels]:
    """Return the sets of labels that a setting holds: one label per class, or several such sets.

    Raises
    ------
    ConfigError
        If a set has not one distinct, non-empty label per class, or the sets are for different tasks.
    """
    given: Sequence[Any] = DEFAULT_LABELS if labels is None else labels
    sets = [given] if given and all(isinstance(label, str) for label in given) else list(given)
    known = sorted(task.n_classes for task in TASKS.values())
    for one in sets:
        is_list = isinstance(one, Sequence) and not isinstance(one, str)
        if not is_list or len(one) not in known or not all(_is_label(label) for label in one):
            raise ConfigError(
                f"labels must be one text per class without blanks around it ({' or '.join(map(str, known))} of them, "
                f"such as A, B, tie), or a list of such lists; got {one!r:.60}"
            )
        if len(set(one)) < len(one):
            raise ConfigError(f"labels must differ from each other, got {list(one)}")
    if len({len(one) for one in sets}) != 1:
        raise ConfigError(f"all sets of labels must be for the same classes; got {[list(one) for one in sets]}")
    return [tuple(one) for one in sets]


def _is_label(label: object) -> bool:
    return isinstance(label, str) and bool(label) and label == label.strip()


def make_wordings(prompts: Any, labels: Sequence[str] | Sequence[Sequence[str]] | None) -> list[Wording]:
    """Return every prompt with every set of labels; errors as of `parse_prompts`, `parse_labels` and `word`."""
    sets = parse_labels(labels)
    return [word(prompt, one) for prompt in parse_prompts(prompts) for one in sets]
