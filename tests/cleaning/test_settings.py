import pytest

from lmsys_ensemble.cleaning.settings import HygieneSettings
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.settings import parse_settings


def test_settings_that_are_none_get_a_suggestion():
    with pytest.raises(ConfigError, match=r"unknown key 'duplicate' \(did you mean 'duplicates'\?\)"):
        parse_settings(HygieneSettings, {"duplicate": "keep"}, "recipe")
    with pytest.raises(ConfigError, match="similar_prompts"):
        parse_settings(HygieneSettings, {"similar_prompts": 0.1}, "recipe")
