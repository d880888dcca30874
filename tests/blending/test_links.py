import numpy as np
import pytest

from lmsys_ensemble.blending.links import LINKS, Link, fit_link
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.probabilities import softmax

TRUE = [Link("davidson", 0.7, -0.4), Link("rao-kupper", 0.7, -0.9), Link("bradley-terry", 0.7)]


def draw_rewards(n_rows, seed=0):
    rewards = np.random.default_rng(seed).normal(3, 4, (2, n_rows)).astype(np.float32)
    rewards[1, ::7] = rewards[0, ::7]
    return rewards


def draw_labels(link, rewards, seed=1):
    sums = softmax(link.logits(*rewards)).cumsum(axis=1)
    return (np.random.default_rng(seed).random(len(sums))[:, None] > sums).sum(axis=1)


def mean_loss(link, rewards, labels):
    return -np.log(softmax(link.logits(*rewards)))[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("link", TRUE, ids=LINKS)
def test_swapping_the_rewards_swaps_the_classes_to_the_last_bit(link):
    rewards = draw_rewards(1000)
    logits, swapped = link.logits(*rewards), link.logits(*rewards[::-1])
    assert logits.shape == (1000, link.task.n_classes)
    np.testing.assert_array_equal(swapped[:, link.task.swap_order], logits)
    assert np.ptp(logits, axis=0)[0] > 1


def test_davidsons_probabilities_are_those_of_the_formula():
    a, b = draw_rewards(50).astype(np.float64)
    worth_a, worth_b = np.exp(0.7 * a), np.exp(0.7 * b)
    shares = np.column_stack([worth_a, worth_b, np.exp(-0.4) * np.sqrt(worth_a * worth_b)])
    expected = shares / shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(TRUE[0].logits(a, b)), expected, rtol=1e-10)


def test_rao_and_kuppers_logits_are_the_logarithms_of_their_probabilities():
    a, b = draw_rewards(50).astype(np.float64)
    worth_a, worth_b, theta = np.exp(0.7 * a), np.exp(0.7 * b), np.exp(np.exp(-0.9))
    wins_a, wins_b = worth_a / (worth_a + theta * worth_b), worth_b / (worth_b + theta * worth_a)
    ties = (theta**2 - 1) * worth_a * worth_b / ((worth_a + theta * worth_b) * (worth_b + theta * worth_a))
    expected = np.column_stack([wins_a, wins_b, ties])
    np.testing.assert_allclose(np.exp(TRUE[1].logits(a, b)), expected, rtol=1e-9)
    np.testing.assert_allclose(expected.sum(axis=1), 1)


def test_rewards_far_apart_and_extreme_ties_give_finite_logits_and_nan_stays_nan():
    for kind in LINKS:
        for tie in (-50.0, 0.0, 50.0):
            logits = Link(kind, 3.0, tie).logits([1e4, -1e4, 0, np.nan], [-1e4, 1e4, 0, 0])
            assert np.isfinite(logits[:3]).all()
            assert np.isnan(logits[3]).all()


@pytest.mark.parametrize("link", TRUE, ids=LINKS)
def test_a_fit_finds_the_link_that_the_labels_were_drawn_from_and_no_other_is_likelier(link):
    rewards = draw_rewards(4000)
    labels = draw_labels(link, rewards)
    fitted = fit_link(*rewards, labels, link.kind)
    assert fitted.scale == pytest.approx(link.scale, rel=0.1)
    assert fitted.tie == pytest.approx(link.tie, abs=0.12)
    best = mean_loss(fitted, rewards, labels)
    for scale, tie in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        near = Link(link.kind, fitted.scale + scale, fitted.tie + (tie if link.task.n_classes == 3 else 0))
        assert mean_loss(near, rewards, labels) >= best


@pytest.mark.parametrize("kind", LINKS)
def test_an_integer_weight_is_the_same_as_repeated_rows_and_soft_labels_are_taken(kind):
    rewards = draw_rewards(60)
    n_classes = Link(kind).task.n_classes
    generator = np.random.default_rng(2)
    labels, weights = generator.dirichlet(np.ones(n_classes), 60), generator.integers(0, 3, 60)
    weighted = fit_link(*rewards, labels, kind, sample_weight=weights)
    repeated = fit_link(*rewards.repeat(weights, axis=1), labels.repeat(weights, axis=0), kind)
    assert (weighted.scale, weighted.tie) == pytest.approx((repeated.scale, repeated.tie), abs=1e-5)


@pytest.mark.parametrize("kind", LINKS)
def test_rewards_that_prefer_the_worse_response_are_fitted_as_next_to_nothing(kind):
    rewards = draw_rewards(200)
    worse = (rewards[0] > rewards[1]).astype(int)
    assert 0 < fit_link(*rewards, worse, kind).scale < 1e-5


def test_labels_without_ties_and_without_errors_give_a_link_that_can_be_used():
    rewards = draw_rewards(100)
    rewards[1, ::7] += 1
    better = (rewards[0] < rewards[1]).astype(int)
    for kind in LINKS:
        assert np.isfinite(fit_link(*rewards, better, kind).logits(*rewards)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "davison"}, "unknown link 'davison' .did you mean 'davidson'"),
        ({"scale": 0}, "scale must be a number above 0, got 0; a model whose"),
        ({"scale": float("nan")}, "scale must be a number above 0, got nan"),
        ({"tie": float("inf")}, "tie must be a number from -50 to 50, got inf"),
        ({"tie": True}, "tie must be a number from -50 to 50, got True"),
    ],
)
def test_what_is_no_link_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Link(**settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [1.0], [0, 1]), r"shapes \(2,\) and \(1,\)"),
        (([], [], []), r"of at least one row"),
        (([1.0, np.nan], [0.0, 0.0], [0, 1]), "1 of 2 rows have a reward that is NaN or infinite, first in row 1"),
        (([1.0, 2.0], [1.0, 2.0], [0, 1]), "equal in every row"),
        (([1.0, 2.0], [0.0, 0.0], [0, 3]), "class positions 0 to 2"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        fit_link(*arguments)
    with pytest.raises(InputError, match="sample_weight must be 2 numbers"):
        fit_link([1.0, 2.0], [0.0, 0.0], [0, 1], sample_weight=[1.0, -1.0])
