import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from lmsys_ensemble.evaluation.regression import bias_basis, fit_softmax, minimise, scale_basis
from lmsys_ensemble.probabilities import softmax


def problem(seed, n_rows=80, n_features=4, n_classes=3):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n_rows, n_features))
    labels = generator.dirichlet(np.ones(n_classes), n_rows)
    basis = generator.normal(size=(5, n_features + 1, n_classes))
    prior = generator.normal(size=(n_features + 1, n_classes))
    weights = generator.uniform(0, 2, n_rows)
    return features, labels, prior, basis, weights


def penalised_loss(parameters, features, labels, prior, basis, weights, l2):
    matrix = prior + np.tensordot(parameters, basis, axes=1)
    predicted = softmax(np.column_stack([features, np.ones(len(features))]) @ matrix)
    return -(weights @ (labels * np.log(predicted)).sum(axis=1)) + l2 / 2 * parameters @ parameters


@given(seed=st.integers(0, 10_000), l2=st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_the_gradient_vanishes_at_the_fit(seed, l2):
    features, labels, prior, basis, weights = problem(seed)
    matrix = fit_softmax(features, labels, prior, basis, sample_weight=weights, l2=l2)
    parameters = np.linalg.lstsq(basis.reshape(5, -1).T, (matrix - prior).ravel(), rcond=None)[0]
    slope = approx_fprime(parameters, penalised_loss, 1e-6, features, labels, prior, basis, weights, l2)
    assert np.abs(slope).max() < 1e-3


def test_it_is_scikit_learns_logistic_regression():
    features, _, _, _, _ = problem(0, n_rows=300)
    y = np.random.default_rng(1).integers(0, 3, 300)
    basis = np.eye(15).reshape(15, 5, 3)
    matrix = fit_softmax(features, np.eye(3)[y], np.zeros((5, 3)), basis[:12], l2=2.0)
    reference = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10, max_iter=5000).fit(features, y)
    assert matrix[:-1] == pytest.approx(reference.coef_.T, abs=1e-5)
    assert (matrix[-1] == 0).all()


def test_lower_bounds_hold_and_bind():
    features, labels, prior, basis, _ = problem(3)
    free = fit_softmax(features, labels, prior, basis, l2=0.1)
    assert not np.allclose(free, prior)
    held = fit_softmax(features, labels, prior, np.concatenate([basis, -basis]), l2=0.1, lower=0.0)
    # A direction and its opposite, both from 0 upwards, span the same matrices; only the penalty's path differs.
    assert np.allclose(held, free, atol=1e-5)
    assert np.allclose(fit_softmax(features, labels, prior, np.zeros((0, 5, 3))), prior)


@given(centre=st.lists(st.floats(-3, 3), min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_the_minimum_of_a_bounded_quadratic(centre):
    centre = np.array(centre)

    def objective(parameters, with_derivatives):
        shift = parameters - centre
        return float(shift @ shift) / 2, shift, np.eye(3)

    assert minimise(objective, np.ones(3), lower=0.0) == pytest.approx(np.maximum(centre, 0), abs=1e-6)


def test_a_fit_that_cannot_converge_warns():
    def inconsistent(parameters, with_derivatives):
        return float(parameters[0]), -np.ones(1), np.eye(1)

    with pytest.warns(ConvergenceWarning, match="did not converge"):
        result = minimise(inconsistent, np.zeros(1))
    assert np.isfinite(result).all()


def test_a_large_step_is_cut():
    # From far away the full Newton step on log(cosh) diverges.
    def objective(parameters, with_derivatives):
        x = parameters[0]
        return float(np.log(np.cosh(x))), np.tanh(parameters), np.array([[1 / np.cosh(x) ** 2]])

    assert minimise(objective, np.array([2.5])) == pytest.approx([0.0], abs=1e-6)


def test_bases():
    assert scale_basis(2, 3).shape == (2, 7, 3)
    assert np.array_equal(scale_basis(2, 3).sum(axis=0), np.vstack([np.eye(3), np.eye(3), np.zeros((1, 3))]))
    assert np.array_equal(bias_basis(2, 3)[:, -1], np.eye(3))
    assert bias_basis(2, 3)[:, :-1].sum() == 0
