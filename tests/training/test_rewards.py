import numpy as np
import pytest

from lmsys_ensemble.blending.links import Link
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.scorers.reward import RewardScorer
from lmsys_ensemble.training.rewards import fit_reward_head, train_reward_head
from tests.reward_models import CHAT, save_reward_model
from tests.tiny import make_battles, plain_logits, plain_model


def test_a_head_that_is_trained_here_scores_as_plain_transformers_have_it_and_as_its_teacher(tmp_path):
    teacher = save_reward_model("llama", tmp_path / "teacher", template=CHAT)
    rows, unseen = make_battles(100, longest=6), make_battles(30, seed=1, longest=6)
    with RewardScorer(str(teacher), device="cpu", max_tokens=100, tie=-0.5) as scorer:
        taught, true = softmax(scorer.score(rows)), softmax(scorer.score(unseen))
    folder = tmp_path / "mine"
    link = train_reward_head(str(teacher), rows, taught, folder, device="cpu", max_tokens=100, l2=1e-6)
    assert (link.kind, link.scale) == ("davidson", 1)
    assert link.tie == pytest.approx(-0.5, abs=0.05)
    with RewardScorer(str(folder), device="cpu", max_tokens=100, tie=link.tie) as mine:
        mine.check()
        rewards, got = mine.rewards(unseen), softmax(mine.score(unseen))
        ids = mine.encode(unseen[:5]).ids
    np.testing.assert_allclose(
        rewards[:5].ravel(), plain_logits(plain_model(folder, num_labels=1), ids)[:, 0], atol=1e-5
    )
    np.testing.assert_allclose(got, true, atol=0.05)
    assert np.ptp(true[:, 0]) > 0.3


def test_the_fit_is_that_of_the_formula_and_no_other_is_better():
    generator = np.random.default_rng(0)
    differences = generator.normal(0, [1, 5, 0.2], (80, 3))
    labels = generator.dirichlet([1, 1, 1], 80)
    weight, tie = fit_reward_head(differences, labels, 0.02)
    size = np.sqrt((differences**2).mean(axis=0)) + 1e-6

    def loss(weight, tie):
        rewards = differences @ weight
        probabilities = softmax(Link("davidson", 1.0, tie).logits(rewards, np.zeros(80)))
        return -(labels * np.log(probabilities)).sum(axis=1).mean() + 0.02 * np.square(weight * size).sum()

    best = loss(weight, tie)
    for step in np.vstack([np.eye(4), -np.eye(4)]) * 1e-3:
        assert loss(weight + step[:3] / size, tie + step[3]) > best
    mirrored, same = fit_reward_head(-differences, labels[:, [1, 0, 2]], 0.02)
    np.testing.assert_allclose(mirrored, weight, rtol=1e-6)
    assert same == pytest.approx(tie)


def test_what_cannot_be_trained_is_refused(checkpoints, tmp_path):
    battles, labels = make_battles(2), [0, 2]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("")
    with pytest.raises(InputError, match="is not empty; give a new folder"):
        train_reward_head(str(checkpoints.base("llama")), battles, labels, tmp_path / "full")
    with pytest.raises(InputError, match="class positions 0 to 2"):
        train_reward_head(str(checkpoints.base("llama")), battles, [0, 3], tmp_path / "new")
    with pytest.raises(ConfigError, match="is put on a decoder with one linear head"):
        train_reward_head(str(checkpoints.base("modernbert")), battles, labels, tmp_path / "new", max_tokens=100)
    with pytest.raises(InputError, match="at least one row and l2 above 0, got 1 and 0"):
        fit_reward_head(np.ones((1, 2)), np.eye(3)[:1], 0)
    assert not (tmp_path / "new").exists()
