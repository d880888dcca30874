"""Named, versioned templates: how a battle becomes text.

A template never changes once it is published under a version: a model is only as good as the template it was trained
with, so its recipe names both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lmsys_ensemble.data.battles import Battle, Turns
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.schema import PROMPT, RESPONSE_A, RESPONSE_B, TEXT_COLUMNS
from lmsys_ensemble.settings import suggest


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the text: fixed words of the template, then words of the user.

    Parameters
    ----------
    field : str
        ``prompt``, ``response_a`` or ``response_b``.
    turn : int
        Number of the turn, from 0.
    literal, text : str
        Words of the template, and the user's words that follow them.
    """

    field: str
    turn: int
    literal: str
    text: str


@dataclass(frozen=True)
class Template:
    """How a battle becomes text.

    Parameters
    ----------
    name, version : str, int
        Identity, as recipes state it.
    layout : {"by_field", "by_turn"}
        ``by_field`` writes the whole prompt, then all of response A, then all of response B, the turns of each
        joined by `turn_separator`. ``by_turn`` writes prompt, response A and response B of the first turn, then of
        the second, with `turn_separator` between turns.
    prompt, response_a, response_b : str
        Words before each field.
    turn_separator : str
        Words between turns.
    """

    name: str
    version: int
    layout: Literal["by_field", "by_turn"]
    prompt: str
    response_a: str
    response_b: str
    turn_separator: str

    def pieces(self, battle: Battle) -> Iterator[Piece]:
        """Yield the pieces of a battle in the order of the text."""
        fields: dict[str, Turns] = {
            PROMPT: battle.prompt,
            RESPONSE_A: battle.response_a,
            RESPONSE_B: battle.response_b,
        }
        literals = {PROMPT: self.prompt, RESPONSE_A: self.response_a, RESPONSE_B: self.response_b}
        if self.layout == "by_field":
            for field in TEXT_COLUMNS:
                for turn, text in enumerate(fields[field]):
                    yield Piece(field, turn, self.turn_separator if turn else literals[field], text)
        else:
            for turn in range(len(battle.prompt)):
                for field in TEXT_COLUMNS:
                    separator = self.turn_separator if turn and field == PROMPT else ""
                    yield Piece(field, turn, separator + literals[field], fields[field][turn])


def merge_turns(pieces: Iterator[Piece]) -> list[Piece]:
    """Merge the turns of every field into one piece."""
    literals: dict[str, str] = {}
    texts: dict[str, list[str]] = {}
    for piece in pieces:
        if piece.field in texts:
            texts[piece.field].append(piece.literal)
        literals.setdefault(piece.field, piece.literal)
        texts.setdefault(piece.field, []).append(piece.text)
    return [Piece(field, 0, literal, "".join(texts[field])) for field, literal in literals.items()]


_TEMPLATES = (
    # The public Gemma-2 notebooks of the Chatbot Arena competition: turns joined by a blank.
    Template("kaggle-gemma", 1, "by_field", "<prompt>: ", "\n\n<response_a>: ", "\n\n<response_b>: ", " "),
    # The public Llama-3 inference notebook of the same competition.
    Template("kaggle-llama", 1, "by_field", "User prompt: ", "\n\nModel A :\n", "\n\n--------\n\nModel B:\n", " "),
    # Turn by turn, so that what is cut from a long conversation is its beginning, for both responses alike.
    Template("turns", 1, "by_turn", "<prompt>: ", "\n\n<response_a>: ", "\n\n<response_b>: ", "\n\n"),
)

TEMPLATES = {template.name: template for template in _TEMPLATES}
"""Built-in templates by name."""


def get_template(name: str, version: int | None = None) -> Template:
    """Return a built-in template.

    Raises
    ------
    ConfigError
        If there is none of that name, or it has another version.
    """
    if name not in TEMPLATES:
        raise ConfigError(f"unknown template {name!r}{suggest(name, TEMPLATES)}")
    template = TEMPLATES[name]
    if version is not None and version != template.version:
        raise ConfigError(
            f"template {name!r} has version {template.version} here, version {version} is asked for; "
            "install the release of lmsys_ensemble that the model was trained with"
        )
    return template
