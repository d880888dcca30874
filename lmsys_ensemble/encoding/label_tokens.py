"""The tokens that a language model answers with: derived from the tokenizer at hand, and checked.

A label counts only if it is one token behind the very tokens that the prompt ends with. Which one that is depends on
the tokenizer and on what stands before it: after ``Answer:`` it is the token with a blank before it, after a line end
the one without.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer

from lmsys_ensemble.errors import ConfigError

_ANCHOR = "a"
_NO_BLANK_AFTER = "([{<>\"'`*_/|"
"""Characters behind which a word begins without a blank; so it does behind blanks and line ends."""


def continue_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a text that follows other text: some tokenizers put a blank before what begins a text.

    Control tokens that are written out in `text` become control tokens only where the tokenizer is set to that.
    """
    anchor = tokenizer.encode(_ANCHOR, add_special_tokens=False).ids
    both = tokenizer.encode(_ANCHOR + text, add_special_tokens=False).ids
    if both[: len(anchor)] == anchor:
        return list(both[len(anchor) :])
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def find_label_tokens(
    tokenizer: Tokenizer, ending: str, labels: Sequence[str], *, name: str, blank: bool | None = None
) -> tuple[int, ...]:
    """Return the token that every label is behind the end of a prompt.

    Parameters
    ----------
    tokenizer : Tokenizer
        That of the model, set to recognise control tokens.
    ending : str
        All that the prompt ends with behind the texts of a battle; encoded by `continue_text`.
    labels : sequence of str
        Without blanks around them.
    name : str
        What errors call the prompt.
    blank : bool, optional
        Whether an answer begins with a blank, where that is known; by default it is told by the last character of
        `ending`. The other way is tried where this one gives more than one token.

    Returns
    -------
    tuple of int
        One token per label, each another one, none of them a control token.

    Raises
    ------
    ConfigError
        If a label is not exactly one token more, or two labels are the same; names the label and its tokens.
    """
    before = continue_text(tokenizer, ending)
    first = _begins_with_blank(ending) if blank is None else blank
    ways = [" ", ""] if first else ["", " "]
    if ending.endswith((" ", "\t")):
        ways = [""]  # a second blank is not what any text goes on with
    faults: list[tuple[int, str]] = []
    for way in ways:
        found, fault = _try_labels(tokenizer, ending, before, [way + label for label in labels])
        if not fault:
            return found
        faults.append((len(found), fault))
    _, closest = max(faults, key=lambda entry: entry[0])  # of two equally close ones, the first
    raise ConfigError(f"{name}: {closest}")


def _begins_with_blank(ending: str) -> bool:
    last = ending[-1:]
    return bool(last) and not last.isspace() and last not in _NO_BLANK_AFTER


def _try_labels(
    tokenizer: Tokenizer, ending: str, before: list[int], labels: Sequence[str]
) -> tuple[tuple[int, ...], str]:
    """Return the tokens of labels up to the first that is not one token, and what is wrong with it, if there is one."""
    tokens: dict[int, str] = {}
    cue = ending[-12:]
    for label in labels:
        after = continue_text(tokenizer, ending + label)
        if after[: len(before)] != before:
            return tuple(tokens), (
                f"the label {label.strip()!r} runs into the end of the prompt, {cue!r}: the last tokens become "
                f"{_spell(tokenizer, after[-3:])} instead of {_spell(tokenizer, before[-3:])}. End the cue otherwise, "
                "without a blank at its end"
            )
        new = after[len(before) :]
        if len(new) != 1:
            return tuple(tokens), (
                f"the label {label.strip()!r} is {len(new)} tokens behind {cue!r}, {_spell(tokenizer, new)}, expected "
                "exactly one. Choose labels that are single tokens of this tokenizer (such as A, B, C or 1, 2, 3)"
            )
        read = tokenizer.decode(new, skip_special_tokens=True)
        if read.strip().casefold() != label.strip().casefold():
            return tuple(tokens), (
                f"the label {label.strip()!r} becomes the token {_spell(tokenizer, new)}, which is unknown or a "
                "control token; choose another label"
            )
        if new[0] in tokens:
            return tuple(tokens), (
                f"the labels {tokens[new[0]].strip()!r} and {label.strip()!r} are the same token, "
                f"{_spell(tokenizer, new)}; choose labels that differ in their first letters"
            )
        tokens[new[0]] = label
    return tuple(tokens), ""


def _spell(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return str([tokenizer.id_to_token(token) for token in ids])
