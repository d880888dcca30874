"""What every scorer with a model does alike."""

import pytest

from lmsys_ensemble.errors import InputError, ScoringError
from lmsys_ensemble.scorers.choice import ChoiceScorer
from lmsys_ensemble.scorers.classifier import ClassifierScorer
from lmsys_ensemble.scorers.gemma import GemmaScorer
from lmsys_ensemble.scorers.model import ModelScorer
from lmsys_ensemble.scorers.reward import RewardScorer
from lmsys_ensemble.testing.results import example_battles

KINDS = [ClassifierScorer, GemmaScorer, ChoiceScorer, RewardScorer]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_scored_before_it_is_loaded_nor_is_closing_an_error(kind):
    scorer = kind("bundled:smollm2-135m-instruct", name="mine")
    scorer.close()
    for use in (scorer.score, scorer.score_prepared):
        with pytest.raises(ScoringError, match=r"mine is not loaded; call load\(\)"):
            use(example_battles())


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_no_battles(kind, battles_table):
    with pytest.raises(InputError, match=r"encode takes Battles, got type DataFrame; write encode\(parse_battles"):
        kind("bundled:smollm2-135m-instruct").encode(battles_table)


@pytest.mark.parametrize("kind", KINDS)
def test_how_it_computes_is_passed_on_as_one_object_and_its_batch_size_is_neutral(kind):
    scorer = kind("somewhere", device="cuda:1", quantization="nf4", dtype="float16", tokens_per_batch=64)
    assert isinstance(scorer, ModelScorer)
    assert scorer.needs_device
    assert (scorer.compute.device, scorer.compute.quantization, scorer.compute.dtype) == ("cuda:1", "nf4", "float16")
    assert "tokens_per_batch" in scorer.neutral_settings
    assert not scorer.shareable  # quantised layers keep state as they run
