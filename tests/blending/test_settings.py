import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from lmsys_ensemble.blending.blender import Blender, BlenderNotFittedError
from lmsys_ensemble.blending.spec import METHODS
from lmsys_ensemble.errors import ConfigError, EnsembleError

from .conftest import simulate


def test_fixed_values_need_no_fit():
    first, second = np.array([[0.5, 0.3, 0.2]]), np.array([[0.2, 0.2, 0.6]])
    mixed = 0.6 * first + 0.4 * second
    assert np.allclose(Blender(weights=[0.6, 0.4]).predict_proba([first, second]), mixed)
    assert np.allclose(Blender(weights=[3, 2]).predict_proba([first, second]), mixed)
    warm = mixed ** (1 / 1.05)
    result = Blender(weights=[0.6, 0.4], temperature=1.05).predict_proba([first, second])
    assert np.allclose(result, warm / warm.sum())
    product = first**0.6 * second**0.9
    result = Blender("log", weights=(0.6, 0.9)).predict_proba([first, second])
    assert np.allclose(result, product / product.sum())
    result = Blender(temperature=[1e-3, 1.0]).predict_proba([first, second])
    assert np.allclose(result, [[0.6, 0.1, 0.3]])


@pytest.mark.parametrize(
    "settings",
    [{"method": method} for method in METHODS if method != "equal"]
    + [{"calibration": "after"}, {"weights": [0.5, 0.5], "calibration": "bias"}],
)
def test_what_has_to_learn_says_so(settings):
    blender = Blender(**settings)
    with pytest.raises(BlenderNotFittedError, match="call fit") as caught:
        blender.predict_proba(simulate(5)[0])
    assert isinstance(caught.value, NotFittedError)
    assert isinstance(caught.value, EnsembleError)
    with pytest.raises(NotFittedError):
        check_is_fitted(blender)


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": [0.5, np.nan]},
        {"weights": [0.5, -0.5]},
        {"weights": [0.0, 0.0]},
        {"weights": [0.5, 0.3, 0.2]},
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": [1.0]},
        {"temperature": "warm"},
        {"method": "mean"},
        {"method": "auto", "weights": [0.5, 0.5]},
        {"method": "stack", "weights": [0.5, 0.5]},
        {"calibration": "afterwards"},
        {"weights": [1e308, 1e308]},
        {"method": "log", "weights": [1e307, 1e307]},
        {"temperature": 1e-310},
        {"temperature": [1e-310, 1.0]},
    ],
)
def test_impossible_settings_are_refused_by_fit_and_predict(settings):
    members, y = simulate(30)
    with pytest.raises(ConfigError):
        Blender(**settings).fit(members, y)
    with pytest.raises(ConfigError):
        Blender(**settings).predict_proba(members)


def test_auto_restricted_to_a_calibration():
    members, y = simulate(300, 2)
    table = Blender("auto", "none").fit(members, y).selection_
    assert set(table.calibration) == {"none"}


def test_auto_with_a_single_group_keeps_the_equal_blend():
    members, y = simulate(100, 2)
    blender = Blender("auto").fit(members, y, groups=["same"] * 100)
    assert (blender.method_, blender.selection_) == ("equal", None)


def test_auto_with_one_scorer():
    members, y = simulate(400, 1)
    blender = Blender("auto").fit(members, y)
    assert blender.method_ == "equal"
    assert blender.calibration_ == "after"
    assert blender.temperature_ > 1.1
