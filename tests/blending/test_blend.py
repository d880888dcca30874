import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ensemble.blending.blend import Blend, apply_temperature
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.metrics import log_loss
from lmsys_ensemble.probabilities import check_labels, log_probabilities, softmax

seeds = st.integers(0, 2**32 - 1)


def random_members(seed, n_scorers=3, n_rows=20, n_classes=3, concentration=1.0):
    return list(np.random.default_rng(seed).dirichlet([concentration] * n_classes, (n_scorers, n_rows)))


def random_blend(seed, pool, n_scorers=3, n_classes=3):
    generator = np.random.default_rng(seed)
    return Blend(
        pool,
        generator.dirichlet([1] * n_scorers),
        generator.uniform(0.5, 2, n_scorers),
        generator.uniform(0.5, 2),
        generator.normal(size=n_classes),
        generator.normal(size=(n_scorers, n_classes, n_classes)) if pool == "stack" else None,
    )


@pytest.mark.parametrize("pool", ["linear", "log", "stack"])
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_rows_sum_to_one_and_keep_their_order(pool, seed):
    blend, members = random_blend(seed, pool), random_members(seed, concentration=0.1)
    result = blend.apply(members)
    assert np.allclose(result.sum(axis=1), 1, atol=1e-12)
    assert (result >= 0).all()
    order = np.random.default_rng(seed).permutation(len(result))
    assert np.allclose(blend.apply([member[order] for member in members]), result[order], atol=1e-12)


@given(seed=seeds)
@settings(max_examples=50, deadline=None)
def test_a_convex_blend_of_aligned_members_is_never_worse_than_the_worst(seed):
    members = random_members(seed, concentration=0.3)
    weights = np.random.default_rng(seed).dirichlet([0.5] * 3)
    labels = check_labels(np.random.default_rng(seed + 1).integers(0, 3, 20), n_classes=3)
    blended = log_loss(labels, Blend("linear", weights).apply(members))
    assert blended <= sum(w * log_loss(labels, p) for w, p in zip(weights, members, strict=True)) + 1e-9
    assert blended <= max(log_loss(labels, member) for member in members) + 1e-9


def test_linear_is_the_weighted_average():
    members = random_members(0)
    result = Blend("linear", np.array([2.0, 1.0, 1.0])).apply(members)
    assert np.allclose(result, 0.5 * members[0] + 0.25 * members[1] + 0.25 * members[2], atol=1e-15)


def test_log_is_the_product_of_powers():
    members = random_members(0, n_scorers=2)
    product = members[0] ** 0.7 * members[1] ** 0.6
    result = Blend("log", np.array([0.7, 0.6])).apply(members)
    assert np.allclose(result, product / product.sum(axis=1, keepdims=True), atol=1e-12)


def test_log_is_the_stack_of_scaled_identities():
    members, weights = random_members(1), np.array([0.7, 0.6, 0.1])
    stack = Blend("stack", weights, coefficients=weights[:, None, None] * np.eye(3))
    assert np.allclose(stack.apply(members), Blend("log", weights).apply(members), atol=1e-12)


def test_temperatures_and_bias_act_where_they_say():
    (member,) = random_members(2, n_scorers=1)
    one, bias = np.ones(1), np.array([0.3, -0.1, -0.2])
    after = Blend("linear", one, temperature=2.0, bias=bias).apply([member])
    assert np.allclose(after, softmax(np.log(member) / 2 + bias), atol=1e-12)
    before = Blend("linear", one, np.array([2.0])).apply([member])
    assert np.allclose(before, softmax(np.log(member) / 2), atol=1e-12)
    assert np.allclose(before, apply_temperature(member, 2.0))


def test_a_probability_of_zero_is_floored_not_infinite():
    result = Blend("log", np.array([1.0])).apply([np.array([[1.0, 0.0, 0.0]])])
    assert np.isfinite(log_probabilities(result)).all()
    assert result[0, 1] == pytest.approx(1e-15)


@pytest.mark.parametrize("pool", ["linear", "log", "stack"])
def test_no_rows_give_no_rows(pool):
    assert random_blend(0, pool).apply([np.empty((0, 3))] * 3).shape == (0, 3)


def test_the_wrong_number_of_scorers_or_classes_is_refused():
    with pytest.raises(InputError, match="2 scorers"):
        random_blend(0, "linear").apply(random_members(0, n_scorers=2))
    for pool in ("linear", "stack"):
        with pytest.raises(InputError, match="2 classes"):
            random_blend(0, pool).apply(random_members(0, n_classes=2))


@pytest.mark.parametrize(
    "values",
    [
        {"pool": "median"},
        {"weights": np.array([np.nan])},
        {"weights": np.array([0.0])},
        {"temperatures": np.array([1.0, 1.0])},
        {"temperatures": np.array([0.0])},
        {"temperature": -1.0},
        {"bias": np.array([np.inf, 0, 0])},
        {"coefficients": np.eye(3)[None]},
        {"pool": "stack"},
        {"pool": "stack", "coefficients": np.eye(3)},
        {"pool": "stack", "coefficients": np.full((1, 3, 3), np.nan)},
        # Each of these is finite and makes infinite logits, whose differences are NaN.
        {"pool": "log", "weights": np.array([1e308])},
        {"weights": np.array([1e308, 1e308])},
        {"temperature": 1e-310},
        {"temperatures": np.array([1e-310])},
        {"pool": "log", "weights": np.array([1e200]), "temperature": 1e-200},
        {"pool": "stack", "coefficients": np.full((1, 3, 3), 1e308)},
        {"bias": np.array([1e308, -1e308, 0])},
    ],
)
def test_impossible_values_are_refused(values):
    with pytest.raises(ConfigError):
        Blend(**{"pool": "linear", "weights": np.ones(1), **values})


@pytest.mark.parametrize("pool", ["linear", "log", "stack"])
def test_without_is_the_blend_of_the_others(pool):
    blend, members = random_blend(3, pool), random_members(3)
    if pool == "stack":
        blend = Blend("stack", np.array([0.2, 0.3, 0.5]), bias=blend.bias, coefficients=blend.coefficients)
    rest = blend.without([1])
    assert rest.n_scorers == 2
    assert rest.weights.sum() == pytest.approx(blend.weights.sum())
    assert rest.weights[0] / rest.weights[1] == pytest.approx(blend.weights[0] / blend.weights[2])
    assert np.allclose(rest.apply([members[0], members[2]]).sum(axis=1), 1)


def test_without_a_copy_of_a_scorer_nothing_changes():
    (member,) = random_members(4, n_scorers=1)
    for pool in ("linear", "log"):
        blend = Blend(pool, np.array([0.3, 0.5]), temperature=1.3)
        assert np.allclose(blend.without([0]).apply([member]), blend.apply([member, member]), atol=1e-12)


def test_nothing_of_weight_left_is_refused():
    with pytest.raises(InputError, match="have no weight"):
        Blend("linear", np.array([1.0, 0.0])).without([0])
    with pytest.raises(InputError, match="have no weight"):
        Blend("linear", np.array([1.0, 5e-324])).without([0])
    steep = Blend("stack", np.array([1.0, 1e-14]), coefficients=np.stack([np.eye(3), 10 * np.eye(3)]))
    with pytest.raises(InputError, match=r"cannot stand in: .*logits of up to"):
        steep.without([0])


@pytest.mark.parametrize("pool", ["linear", "log"])
def test_extreme_values_that_are_allowed_give_probabilities(pool):
    members = [np.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]), np.array([[0.0, 1.0, 0.0], [0.4, 0.3, 0.3]])]
    for values in (
        {"weights": np.array([1e12, 1e12])},
        {"weights": np.array([1e-300, 1e-300])},
        {"weights": np.ones(2), "temperature": 1e-12},
        {"weights": np.ones(2), "temperature": 1e300},
        {"weights": np.ones(2), "temperatures": np.array([1e-12, 1e300])},
    ):
        result = Blend(pool, **values).apply(members)
        assert np.isfinite(result).all()
        assert np.allclose(result.sum(axis=1), 1)


@pytest.mark.parametrize("pool", ["linear", "log", "stack"])
def test_json_round_trip_is_exact(pool):
    blend, members = random_blend(5, pool), random_members(5)
    copy = Blend.from_dict(json.loads(json.dumps(blend.to_dict())))
    assert (copy.apply(members) == blend.apply(members)).all()


def test_a_damaged_dict_is_refused():
    good = random_blend(0, "stack").to_dict()
    wrong = ({"weights": None}, {"extra": 1}, {"coefficients": [[[1.0], [1.0, 2.0]]]}, {"temperature": 0.0})
    for change in wrong:
        with pytest.raises(ConfigError):
            Blend.from_dict({**good, **change})
    with pytest.raises(ConfigError):
        Blend.from_dict({"pool": "linear"})
