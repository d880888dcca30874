import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from lmsys_ensemble.blending.blend import Blend
from lmsys_ensemble.blending.weights import (
    fit_exponents,
    fit_linear_weights,
    fit_stack,
    mean_exponents,
    select_greedily,
)
from lmsys_ensemble.evaluation.metrics import log_loss
from lmsys_ensemble.probabilities import check_labels, log_probabilities, softmax, swap_order

from .conftest import draw_labels, simulate


def drawn(members, blend, seed=7):
    """Labels that follow a known blend."""
    return check_labels(draw_labels(blend.apply(members), seed), n_classes=members[0].shape[1])


def test_known_linear_weights_come_back():
    members, _ = simulate(60_000, 3, noise=2.0)
    true = np.array([0.6, 0.3, 0.1])
    weights = fit_linear_weights(members, drawn(members, Blend("linear", true)))
    assert weights == pytest.approx(true, abs=0.03)
    assert weights.sum() == pytest.approx(1)


def test_known_exponents_and_biases_come_back():
    members, _ = simulate(40_000, 3)
    true, bias = np.array([0.9, 0.4, 0.0]), np.array([0.3, -0.3, 0.0])
    exponents, fitted = fit_exponents(members, drawn(members, Blend("log", true, bias=bias)), bias=True)
    assert exponents == pytest.approx(true, abs=0.04)
    assert (exponents >= 0).all()
    assert fitted == pytest.approx(bias, abs=0.04)


def test_a_known_stack_comes_back():
    members, _ = simulate(60_000, 2)
    true = np.array([np.eye(3) * 0.8, np.diag([0.6, 0.2, 0.4])])
    labels = drawn(members, Blend("stack", np.ones(2), coefficients=true))
    coefficients, bias = fit_stack(members, labels)
    truth = Blend("stack", np.ones(2), coefficients=true).apply(members)
    fitted = Blend("stack", np.ones(2), coefficients=coefficients, bias=bias).apply(members)
    assert np.abs(fitted - truth).max() < 0.05
    assert mean_exponents(coefficients) == pytest.approx(mean_exponents(true), abs=0.04)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_linear_weights_are_the_best_on_the_simplex(seed):
    members, y = simulate(120, 3, noise=2.0, seed=seed)
    labels = check_labels(y, n_classes=3)

    def loss(logits):
        return log_loss(labels, Blend("linear", softmax(logits[None])[0]).apply(members))

    reference = min(minimize(loss, start).fun for start in ([0.0, 0, 0], [2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]))
    assert log_loss(labels, Blend("linear", fit_linear_weights(members, labels)).apply(members)) < reference + 1e-7


@pytest.mark.parametrize("fit", [fit_linear_weights, select_greedily, lambda *args: fit_exponents(*args)[0]])
def test_a_useless_scorer_gets_hardly_any_weight(fit):
    # An over-confident scorer would be right to mix in some noise: here the good one is calibrated.
    (good,), y = simulate(5_000, 1, noise=0.0)
    useless = np.random.default_rng(5).dirichlet([1, 1, 1], 5_000)
    weights = fit([good, useless], check_labels(y, n_classes=3))
    assert weights[1] < 0.04
    assert weights[0] > 0.4


@pytest.mark.parametrize("pool", ["linear", "log", "stack"])
def test_a_duplicated_scorer_does_no_harm(pool):
    members, y = simulate(2_000, 2)
    labels = check_labels(y, n_classes=3)

    def fitted(arrays):
        if pool == "linear":
            return Blend("linear", fit_linear_weights(arrays, labels))
        if pool == "log":
            return Blend("log", fit_exponents(arrays, labels, l2=1e-6)[0])
        coefficients, bias = fit_stack(arrays, labels, l2=1e-6)
        return Blend("stack", mean_exponents(coefficients), coefficients=coefficients, bias=bias)

    once, twice = [*members], [*members, members[0]]
    assert np.allclose(fitted(once).apply(once), fitted(twice).apply(twice), atol=1e-4)


def test_duplicates_share_their_weight():
    members, y = simulate(1_000, 2)
    weights = fit_linear_weights([members[0], members[1], members[0]], check_labels(y, n_classes=3))
    assert weights[0] == pytest.approx(weights[2], abs=1e-6)


def test_greedy_weights_are_shares_of_the_draws_and_near_the_best():
    members, _ = simulate(20_000, 3, noise=2.0)
    labels = drawn(members, Blend("linear", np.array([0.7, 0.3, 0.0])))
    weights = select_greedily(members, labels)
    assert weights.sum() == pytest.approx(1)
    best = fit_linear_weights(members, labels)
    assert weights == pytest.approx(best, abs=0.05)
    assert (
        log_loss(labels, Blend("linear", weights).apply(members))
        < log_loss(labels, Blend("linear", best).apply(members)) + 1e-4
    )


def test_greedy_first_draws_the_best_and_the_first_of_equals():
    members, y = simulate(500, 2)
    labels = check_labels(y, n_classes=3)
    losses = [log_loss(labels, member) for member in members]
    assert select_greedily(members, labels, n_steps=1).argmax() == np.argmin(losses)
    assert select_greedily([members[0]] * 3, labels).tolist() == [1, 0, 0]


def test_all_zero_likelihoods_stay_finite():
    members = [np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[1.0, 0.0], [0.2, 0.8]])]
    labels = np.array([[0.0, 1.0], [0.0, 1.0]])
    for weights in (fit_linear_weights(members, labels), select_greedily(members, labels)):
        assert np.isfinite(weights).all()
        assert weights.sum() == pytest.approx(1)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_a_symmetric_stack_is_swap_equivariant(seed):
    members, y = simulate(150, 2, seed=seed)
    coefficients, bias = fit_stack(members, check_labels(y, n_classes=3), swap_equivariant=True)
    blend = Blend("stack", mean_exponents(coefficients), coefficients=coefficients, bias=bias)
    order = list(swap_order(3))
    swapped = blend.apply([member[:, order] for member in members])
    assert np.allclose(swapped[:, order], blend.apply(members), atol=1e-12)


def test_a_free_stack_is_not_swap_equivariant():
    members, y = simulate(150, 2)
    _, bias = fit_stack(members, check_labels(y, n_classes=3))
    assert not np.allclose(bias[0], bias[1], atol=1e-6)


def test_strong_pull_gives_the_equal_logarithmic_pool():
    members, y = simulate(200, 2)
    labels = check_labels(y, n_classes=3)
    coefficients, bias = fit_stack(members, labels, l2=1e9)
    assert coefficients == pytest.approx(np.array([np.eye(3) / 2] * 2), abs=1e-5)
    assert bias == pytest.approx(np.zeros(3), abs=1e-5)
    assert fit_exponents(members, labels, l2=1e9)[0] == pytest.approx([0.5, 0.5], abs=1e-5)


def test_the_stack_without_pull_is_multinomial_regression():
    from sklearn.linear_model import LogisticRegression

    members, y = simulate(3_000, 2)
    coefficients, bias = fit_stack(members, check_labels(y, n_classes=3), l2=1e-6)
    ours = Blend("stack", np.ones(2), coefficients=coefficients, bias=bias).apply(members)
    inputs = np.hstack([log_probabilities(member) for member in members])
    reference = LogisticRegression(C=1e6, tol=1e-8, max_iter=2000).fit(inputs, y).predict_proba(inputs)
    assert np.abs(ours - reference).max() < 1e-3


def test_weights_of_rows_count_as_repetition():
    members, y = simulate(200, 2)
    labels = check_labels(y, n_classes=3)
    times = np.random.default_rng(0).integers(0, 4, 200)
    repeated = [np.repeat(member, times, axis=0) for member in members]
    rows = np.repeat(labels, times, axis=0)
    weighted = (members, labels, times.astype(float))
    assert fit_linear_weights(*weighted) == pytest.approx(fit_linear_weights(repeated, rows), abs=1e-8)
    assert select_greedily(*weighted) == pytest.approx(select_greedily(repeated, rows), abs=1e-8)
    assert fit_exponents(*weighted)[0] == pytest.approx(fit_exponents(repeated, rows)[0], abs=1e-8)
    assert fit_stack(*weighted)[0] == pytest.approx(fit_stack(repeated, rows)[0], abs=1e-8)
