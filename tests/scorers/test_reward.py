import dataclasses

import numpy as np
import pytest
import yaml

import lmsys_ensemble
from lmsys_ensemble.blending.links import Link, fit_link
from lmsys_ensemble.config import read_config
from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.errors import ConfigError, ModelError
from lmsys_ensemble.progress import NoProgress
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.scorers.reward import RewardScorer
from lmsys_ensemble.testing.check import check_scorer
from tests.reward_models import CHAT, KINDS, save_reward_adapter, save_reward_model
from tests.tiny import make_battles, plain_logits, plain_model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewards")
    return {kind: save_reward_model(kind, folder / kind, template=CHAT) for kind in KINDS}


@pytest.fixture
def make_scorer(models):
    def make(kind="llama", **settings):
        return RewardScorer(str(models[kind]), **{"device": "cpu", "max_tokens": 120, **settings})

    return make


@dataclasses.dataclass
class Listener(NoProgress):
    done: tuple = (0, 0)
    failed: list = dataclasses.field(default_factory=list)

    def advance(self, *amounts):
        self.done = tuple(map(sum, zip(self.done, amounts, strict=True)))

    def row_failed(self, row, why):
        self.failed.append(row)


def test_it_keeps_the_contract(make_scorer):
    check_scorer(make_scorer(link="rao-kupper", chat=False))
    assert lmsys_ensemble.RewardScorer is RewardScorer


@pytest.mark.parametrize("with_adapter", [False, True], ids=["head of the model", "adapter"])
@pytest.mark.parametrize("kind", KINDS)
def test_rewards_are_those_of_plain_transformers(make_scorer, models, tmp_path, kind, with_adapter):
    adapter = save_reward_adapter(models[kind], tmp_path / "adapter") if with_adapter else None
    battles = make_battles(6)
    with make_scorer(kind, adapter=None if adapter is None else str(adapter)) as scorer:
        rewards, logits = scorer.rewards(battles), scorer.score(battles)
        ids = scorer.encode(battles).ids
    plain = plain_logits(plain_model(models[kind], adapter=adapter, num_labels=1), ids, rows_at_once=4)
    np.testing.assert_allclose(rewards.ravel(), plain[:, 0], atol=1e-5)
    np.testing.assert_allclose(logits, Link().logits(*rewards.T), atol=1e-6)
    assert np.ptp(rewards) > 0.5


@pytest.mark.parametrize("link", ["davidson", "rao-kupper", "bradley-terry"])
def test_swapping_the_responses_swaps_the_classes_to_the_last_bit(make_scorer, link):
    battles = make_battles(15)
    with make_scorer(link=link, scale=1.7, tie=-0.3, tokens_per_batch=300) as scorer:
        logits, swapped = scorer.score(battles), scorer.score(battles.swapped())
    np.testing.assert_array_equal(swapped[:, scorer.task.swap_order], logits)


def test_equal_responses_have_equal_rewards_and_are_computed_once(make_scorer):
    battles = make_battles(3)
    battles.responses_b[:] = battles.responses_a
    with make_scorer() as scorer:
        n_computed, decoder = [], scorer._forward.decoder

        def count(packed, *rest, **options):
            n_computed.append(len(packed.tokens))
            return decoder(packed, *rest, **options)

        scorer._forward.decoder = count
        rewards = scorer.rewards(battles)
    assert sum(n_computed) == scorer.encode(battles).lengths[::2].sum()
    np.testing.assert_array_equal(rewards[:, 0], rewards[:, 1])


def test_a_link_that_is_fitted_on_its_rewards_makes_its_labels_likelier(make_scorer):
    battles = make_battles(30)
    with make_scorer() as scorer:
        rewards = scorer.rewards(battles)
    gaps = rewards[:, 0] - rewards[:, 1]
    labels = np.where(np.abs(gaps) < 0.3, 2, np.where(gaps + np.random.default_rng(0).normal(0, 0.5, 30) > 0, 0, 1))
    link = fit_link(*rewards.T, labels, "rao-kupper")
    with make_scorer(link=link.kind, scale=link.scale, tie=link.tie) as fitted:
        logits = fitted.score(battles)
    plain = Link("rao-kupper").logits(*rewards.T)
    rows = np.arange(30)
    assert logits[rows, labels].mean() > plain[rows, labels].mean() + 0.05
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, atol=1e-6)


def test_a_link_without_ties_makes_a_two_way_task(make_scorer):
    assert (make_scorer(link="bradley-terry").task, make_scorer().task) == (TWO_WAY, THREE_WAY)
    probabilities = Ensemble([make_scorer(link="bradley-terry")], task=TWO_WAY).predict_proba(make_battles(3))
    assert probabilities.shape == (3, 2)


def test_a_configuration_file_names_it(models, tmp_path):
    entry = {"type": "reward", "model": str(models["llama"]), "link": "rao-kupper", "scale": 0.5, "device": "cpu"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "scorers": [entry]}))
    (scorer,), _, _ = read_config(path)
    assert isinstance(scorer, RewardScorer)
    scorer.check()
    assert len(scorer.encode(make_battles(2))) == 4


def test_progress_and_costs_count_battles_not_conversations(make_scorer):
    battles = make_battles(5)
    battles.prompts[0] = ("kettle " * 5000,) * len(battles.prompts[0])
    with make_scorer(tokens_per_batch=200) as scorer:
        scorer.progress = listener = Listener()
        assert np.isfinite(scorer.score(battles)).all()
        assert listener.done == (5, scorer.encode(battles).lengths.sum())
        costs = scorer.costs(battles)
        scorer._forward.model.score.weight.fill_(np.nan)
        logits = scorer.score(battles)
    assert sorted(listener.failed) == [0, 1, 2, 3, 4]
    assert np.isnan(logits).all()
    assert costs.tokens.shape == (5,)
    assert costs.n_truncated >= 1
    assert (costs.flops > 0).all()
    assert costs.weight_bytes > 0


def test_no_battles_have_no_rewards(make_scorer):
    with make_scorer() as scorer:
        assert scorer.rewards(make_battles(2)[:0]).shape == (0, 2)
        assert scorer.score(make_battles(2)[:0]).shape == (0, 3)


def test_what_is_no_reward_model_is_refused_when_it_is_loaded(checkpoints, make_scorer):
    with pytest.raises(ModelError, match="weights of another shape"):
        RewardScorer(str(checkpoints.classifier("llama")), device="cpu").load()
    with pytest.raises(ModelError, match="no trained classification head"):
        RewardScorer(str(checkpoints.base("llama")), device="cpu").load()
    with pytest.raises(ConfigError, match="unknown link 'thurstone'"):
        make_scorer(link="thurstone").load()
