"""What scorers do alike that make several sequences of a battle."""

import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.scorers.choice import ChoiceScorer
from lmsys_ensemble.scorers.choice_identity import check_choice_settings
from lmsys_ensemble.scorers.reward import RewardScorer
from lmsys_ensemble.scorers.reward_identity import check_reward_settings
from lmsys_ensemble.scorers.sequences import MAX_TOKENS


@pytest.mark.parametrize("max_tokens", [0, MAX_TOKENS + 1, "many", None])
@pytest.mark.parametrize(
    ("kind", "check"), [(ChoiceScorer, check_choice_settings), (RewardScorer, check_reward_settings)]
)
def test_a_length_that_no_model_reads_is_refused_before_anything_is_encoded(kind, check, max_tokens):
    with pytest.raises(ConfigError, match=r"max_tokens must be a whole number from 1 to 131,072, got"):
        check(kind("somewhere", max_tokens=max_tokens))
    check(kind("somewhere", max_tokens=MAX_TOKENS))
