"""What a lexical model is fitted as."""

import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.lexical.settings import LexicalSettings
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.settings import parse_settings


def test_the_task_has_as_many_classes():
    assert LexicalSettings().task == THREE_WAY
    assert LexicalSettings(classes=2).task == TWO_WAY


@pytest.mark.parametrize("wrong", [{"model": "forest"}, {"components": -1}, {"classes": 4}, {"term": 5}])
def test_what_cannot_be_is_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        parse_settings(LexicalSettings, wrong, "here")
