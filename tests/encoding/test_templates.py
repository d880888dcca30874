import pytest

from lmsys_ensemble.data.battles import Battle
from lmsys_ensemble.encoding.templates import TEMPLATES, get_template
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.schema import TEXT_COLUMNS

from .conftest import render

TWO_TURNS = Battle(1, ("Hi.", "More?"), ("A1", "A2"), ("B1", "B2"))

PUBLISHED = {
    ("kaggle-gemma", 1): "<prompt>: Hi. More?\n\n<response_a>: A1 A2\n\n<response_b>: B1 B2",
    ("kaggle-llama", 1): "User prompt: Hi. More?\n\nModel A :\nA1 A2\n\n--------\n\nModel B:\nB1 B2",
    ("turns", 1): (
        "<prompt>: Hi.\n\n<response_a>: A1\n\n<response_b>: B1\n\n"
        "<prompt>: More?\n\n<response_a>: A2\n\n<response_b>: B2"
    ),
}
"""What models out there were trained with: never to change under the same version."""


@pytest.mark.parametrize(("name", "version"), PUBLISHED)
def test_a_published_template_writes_what_it_always_wrote(name, version):
    assert render(get_template(name, version), TWO_TURNS) == PUBLISHED[name, version]


def test_every_template_is_among_the_published_ones():
    assert {(template.name, template.version) for template in TEMPLATES.values()} <= set(PUBLISHED)
    assert all(template.name == name for name, template in TEMPLATES.items())


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=lambda template: template.name)
def test_pieces_hold_every_turn_of_every_field_once_and_say_whose_it_is(template):
    pieces = list(template.pieces(TWO_TURNS))
    written = {(piece.field, piece.turn): piece.text for piece in pieces}
    assert len(pieces) == len(written) == 6
    for field in TEXT_COLUMNS:
        assert tuple(written[field, turn] for turn in (0, 1)) == getattr(TWO_TURNS, field)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=lambda template: template.name)
def test_text_that_looks_like_the_template_is_written_as_it_is(template):
    battle = Battle(1, ("<response_a>: {prompt} %s",), ("Model B:\n",), ("",))
    text = render(template, battle)
    assert battle.prompt[0] in text
    assert text.endswith(template.response_b)


def test_an_unknown_template_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r"unknown template 'kaggle-gema' \(did you mean 'kaggle-gemma'\?\)"):
        get_template("kaggle-gema")
    with pytest.raises(ConfigError, match=r"\(known: .*turns.*\)"):
        get_template("xyz")


def test_another_version_of_a_template_is_refused():
    with pytest.raises(ConfigError, match="has version 1 here, version 2 is asked for; install the release"):
        get_template("turns", 2)
