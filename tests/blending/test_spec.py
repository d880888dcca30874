import numpy as np
import pytest

from lmsys_ensemble.blending.spec import METHODS, BlendSpec, parse_calibration
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.evaluation.metrics import log_loss
from lmsys_ensemble.probabilities import check_labels, softmax

from .conftest import simulate


def test_calibrations_are_parsed():
    assert parse_calibration("none") == frozenset()
    assert parse_calibration("before+bias") == {"before", "bias"}
    with pytest.raises(ConfigError, match="did you mean 'before'"):
        parse_calibration("befor+bias")
    for wrong in ("", "none+bias", None, 3):
        with pytest.raises(ConfigError):
            parse_calibration(wrong)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "staked"}, "did you mean"),
        ({"method": "auto"}, "unknown method"),
        ({"method": "stack", "calibration": "before"}, "adds nothing"),
        ({"method": "log", "calibration": "after"}, "adds nothing"),
        ({"method": "log", "temperature": 1.2}, "adds nothing"),
        ({"calibration": "after", "temperature": 1.2}, "drop one"),
        ({"calibration": "before", "temperature": (1.2, 1.0)}, "drop one"),
        ({"method": "greedy", "weights": (0.5, 0.5)}, "fits its weights"),
        ({"weights": (0.5, -0.5)}, "at least 0"),
        ({"temperature": 0.0}, "above 0"),
        ({"l2": -1.0}, "l2"),
        ({"l2": float("nan")}, "l2"),
    ],
)
def test_contradictions_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        BlendSpec(**settings)


def test_fixed_values_are_kept_while_the_rest_is_fitted():
    members, y = simulate(500, 2)
    labels = check_labels(y, n_classes=3)
    blend = BlendSpec("linear", "after", weights=(3.0, 1.0)).fit(members, labels)
    assert blend.weights.tolist() == [0.75, 0.25]
    assert blend.temperature != 1
    blend = BlendSpec("linear", "bias", temperature=1.3).fit(members, labels)
    assert blend.temperature == 1.3
    assert blend.bias is not None
    blend = BlendSpec("log", "after", weights=(0.4, 0.4)).fit(members, labels)
    assert (blend.pool, blend.weights.tolist()) == ("log", [0.4, 0.4])
    assert blend.temperature != 1
    blend = BlendSpec("equal", "after", temperature=(1.5, 0.8)).fit(members, labels)
    assert blend.temperatures.tolist() == [1.5, 0.8]


def test_the_wrong_number_of_fixed_values_is_refused():
    for spec in (BlendSpec(weights=(1.0,)), BlendSpec(temperature=(1.0, 1.0, 1.0))):
        with pytest.raises(ConfigError, match="for 2 scorers"):
            spec.fixed_blend(2)


def test_parameters_are_counted():
    counts = {
        ("equal", "none"): 0, ("equal", "before+after"): 4, ("linear", "none"): 2, ("greedy", "none"): 2,
        ("log", "bias"): 5, ("stack", "bias"): 20, ("linear", "before+after+bias"): 8,
    }  # fmt: skip
    assert {key: BlendSpec(*key).n_parameters(3, 3) for key in counts} == counts
    assert BlendSpec("linear", weights=(0.5, 0.5)).n_parameters(2, 3) == 0


def test_an_over_confident_wrong_scorer_is_cooled():
    (good,), y = simulate(4_000, 1, noise=0.0)
    generator = np.random.default_rng(1)
    loud = softmax(5 * (np.log(good) + 2 * generator.normal(size=good.shape)))
    labels = check_labels(y, n_classes=3)
    before = BlendSpec("linear", "before").fit([good, loud], labels)
    assert before.temperatures[0] == pytest.approx(1, abs=0.1)
    assert before.temperatures[1] > 5
    exponents = BlendSpec("log").fit([good, loud], labels).weights
    assert exponents[1] < 0.1
    assert log_loss(labels, before.apply([good, loud])) < log_loss(labels, (good + loud) / 2) - 0.02


@pytest.mark.parametrize("method", [method for method in METHODS if method != "auto"])
@pytest.mark.parametrize("n_classes", [2, 3, 4])
@pytest.mark.parametrize("n_scorers", [1, 3])
def test_every_method_fits_any_number_of_classes_and_scorers(method, n_classes, n_scorers):
    members, y = simulate(150, n_scorers, n_classes=n_classes)
    labels = check_labels(y, n_classes=n_classes)
    for symmetric in (False, True):
        result = BlendSpec(method, "bias", swap_equivariant=symmetric).fit(members, labels).apply(members)
        assert result.shape == (150, n_classes)
        assert np.allclose(result.sum(axis=1), 1)


@pytest.mark.parametrize("method", ["greedy", "linear", "log", "stack"])
def test_fitting_does_not_hurt_the_rows_it_was_fitted_on(method):
    members, y = simulate(1_000, 3, noise=2.0)
    labels = check_labels(y, n_classes=3)
    equal = BlendSpec("log", weights=(1 / 3,) * 3) if method in ("log", "stack") else BlendSpec()
    fitted = log_loss(labels, BlendSpec(method).fit(members, labels).apply(members))
    assert fitted <= log_loss(labels, equal.fixed_blend(3).apply(members)) + 1e-12


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("method", "calibration"), [("linear", "before+after+bias"), ("log", "bias"), ("stack", "bias")]
)
def test_swap_equivariance_is_kept_by_all_methods_on_request(method, calibration, symmetric):
    members, y = simulate(300, 2)
    blend = BlendSpec(method, calibration, swap_equivariant=symmetric).fit(members, check_labels(y, n_classes=3))
    swapped = blend.apply([member[:, [1, 0, 2]] for member in members])[:, [1, 0, 2]]
    assert np.allclose(swapped, blend.apply(members), atol=1e-12) == symmetric
