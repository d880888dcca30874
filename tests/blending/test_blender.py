import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from lmsys_ensemble.blending.blender import Blender, MissingMemberWarning
from lmsys_ensemble.blending.diagnosis import MemberWarning
from lmsys_ensemble.blending.members import MemberOrderWarning
from lmsys_ensemble.blending.spec import METHODS
from lmsys_ensemble.errors import ConfigError, InputError

from .conftest import named, simulate


def test_an_unfitted_blender_is_the_equal_average():
    members, _ = simulate(20, 3)
    blender = Blender()
    check_is_fitted(blender)
    assert np.allclose(blender.predict_proba(members), np.mean(members, axis=0), atol=1e-15)


@pytest.mark.parametrize(
    "settings",
    [{"l2": -1.0}, {"l2": np.nan}, {"l2": "1"}, {"n_folds": 1}, {"n_folds": 2.5}, {"n_folds": "5"}, {"seed": -1},
     {"seed": 0.5}],
)  # fmt: skip
def test_impossible_settings_of_the_fit_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Blender("linear", **settings).fit(*simulate(30))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-90, 1e90])
def test_counts_of_any_size_that_is_allowed_give_probabilities(method, scale):
    members, y = simulate(150, 2)
    blender = Blender(method).fit(members, y, sample_weight=np.full(150, scale))
    assert np.isfinite(blender.predict_proba(members)).all()


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_weight_zero_are_no_rows(method):
    members, y = simulate(300, 2)
    kept = np.arange(300) < 150
    alone = Blender(method).fit([member[kept] for member in members], y[kept])
    weighted = Blender(method).fit(members, y, sample_weight=kept.astype(float))
    assert weighted.to_dict() == alone.to_dict()
    only = Blender(method).fit(members, y, sample_weight=(np.arange(300) == 7).astype(float))
    assert only.n_rows_ == 1
    assert np.isfinite(only.predict_proba(members)).all()


def test_the_constructor_only_stores():
    weights = ["not", "checked", "yet"]
    blender = Blender("nothing", "at all", weights=weights, temperature=-3)
    assert blender.get_params()["weights"] is weights
    assert not [name for name in vars(blender) if name.endswith("_")]


def test_clone_copies_parameters_and_not_what_was_learnt():
    members, y = simulate(200)
    fitted = Blender("log", "bias", l2=2.0, seed=3).fit(members, y)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "blend_")
    assert copy.set_params(method="stack").method == "stack"


@pytest.mark.parametrize("method", METHODS)
def test_fitted_attributes(method):
    members, y = simulate(250, 3)
    blender = Blender(method).fit(members, y)
    assert blender.weights_.shape == blender.temperatures_.shape == (3,)
    assert blender.bias_.shape == (3,)
    assert (blender.n_rows_, blender.n_classes_) == (250, 3)
    predicted = blender.predict_proba(members)
    assert blender.log_loss_ == pytest.approx(-np.log(predicted[np.arange(250), y]).mean())
    assert (blender.selection_ is not None) == (method == "auto")
    assert blender.method_ in METHODS
    assert predicted.dtype == np.float64
    assert np.allclose(predicted.sum(axis=1), 1)


def test_fitting_twice_gives_the_same_bits():
    members, y = simulate(300, 2)
    first, second = (Blender("auto", seed=1).fit(members, y) for _ in range(2))
    assert first.to_dict() == second.to_dict()


@pytest.mark.parametrize("method", [method for method in METHODS if method != "auto"])
def test_the_order_of_rows_does_not_matter(method):
    members, y = simulate(300, 2)
    order = np.random.default_rng(0).permutation(300)
    fitted = Blender(method).fit(members, y).predict_proba(members)
    shuffled = [member[order] for member in members]
    assert np.allclose(Blender(method).fit(shuffled, y[order]).predict_proba(shuffled), fitted[order], atol=1e-7)


@pytest.mark.parametrize("method", ["linear", "log", "stack"])
def test_the_order_of_scorers_does_not_matter(method):
    members, y = simulate(300, 3)
    fitted = Blender(method).fit(members, y).predict_proba(members)
    assert np.allclose(Blender(method).fit(members[::-1], y).predict_proba(members[::-1]), fitted, atol=1e-7)


def test_rounding_does_not_change_what_an_input_is():
    members, y = simulate(500, 2)
    rounded = [np.round(member, 4) for member in members]
    assert any((member.sum(axis=1) != 1).any() for member in rounded)
    for method in ("equal", "linear", "log", "stack"):
        calibration = "bias" if method in ("log", "stack") else "after"
        exact = Blender(method, calibration).fit(members, y).predict_proba(members)
        close = Blender(method, calibration).fit(rounded, y).predict_proba(rounded)
        assert np.abs(exact - close).max() < 0.01


def test_labels_may_be_positions_one_hot_or_soft():
    members, y = simulate(300, 2, noise=0.3)
    by_position = Blender("stack").fit(members, y).blend_.to_dict()
    assert Blender("stack").fit(members, pd.Series(y.astype(float))).blend_.to_dict() == by_position
    assert Blender("stack").fit(members, np.eye(3)[y]).blend_.to_dict() == by_position
    soft = 0.8 * np.eye(3)[y] + 0.2 / 3
    assert (
        Blender("equal", "after").fit(members, soft).temperature_
        > Blender("equal", "after").fit(members, y).temperature_
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": [0, 1]}, "labels"),
        ({"y": np.full(30, 3)}, "no class"),
        ({"y": np.full(30, np.nan)}, "no class"),
        ({"y": ["model_a"] * 30}, r"the 1 names 'model_a', the probabilities 3 classes.*Blender\(classes="),
        ({"y": np.full((30, 2), 0.5)}, "2 columns"),
        ({"sample_weight": np.full(30, -1.0)}, "at least 0"),
        ({"sample_weight": [1.0]}, "one per row"),
        ({"sample_weight": np.full(30, 1e308)}, "sum is infinite"),
        ({"sample_weight": np.full(30, 1e150)}, r"sums to 3e\+151"),
        ({"sample_weight": np.full(30, 5e-324)}, "sums to"),
        ({"groups": [1]}, "one per row"),
        ({"groups": [None] * 30}, "missing"),
        ({"probabilities": []}, "empty"),
        ({"probabilities": [np.full((30, 3), np.nan)]}, "not finite"),
        ({"probabilities": [np.empty((0, 3))], "y": []}, "no rows"),
    ],
)
def test_bad_input_to_fit_is_refused(change, words):
    members, y = simulate(30)
    arguments = {"probabilities": members, "y": y, **change}
    with pytest.raises(InputError, match=words):
        Blender("linear").fit(**arguments)


def test_prediction_must_match_the_fit():
    members, y = simulate(100, 2)
    blender = Blender("linear").fit(members, y)
    with pytest.raises(InputError, match="3 scorers"):
        blender.predict_proba([*members, members[0]])
    with pytest.raises(InputError, match="2 classes"):
        blender.predict_proba([np.full((4, 2), 0.5)] * 2)
    for empty in ([], [None, None]):
        with pytest.raises(InputError):
            blender.predict_proba(empty, missing="renormalise")
    assert blender.predict_proba([np.empty((0, 3))] * 2).shape == (0, 3)


def test_a_missing_scorer_is_an_error_unless_asked_for():
    members, _ = simulate(10, 3)
    blender = Blender(weights=[0.5, 0.3, 0.2])
    with pytest.raises(InputError, match=r"scorers \[1\] of 3 are missing"):
        blender.predict_proba([members[0], None, members[2]])
    with pytest.warns(MissingMemberWarning, match=r"scorers \[1\] of 3.*0\.7143, 0\.2857"):
        result = blender.predict_proba([members[0], None, members[2]], missing="renormalise")
    assert np.allclose(result, (0.5 * members[0] + 0.2 * members[2]) / 0.7)
    with pytest.raises(ConfigError, match="renormalise"):
        blender.predict_proba(members, missing="ignore")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_do_without_a_scorer(method):
    members, y = simulate(300, 3)
    blender = Blender(method).fit(members, y)
    with pytest.warns(MissingMemberWarning):
        result = blender.predict_proba([members[0], members[1], None], missing="renormalise")
    assert np.allclose(result.sum(axis=1), 1)
    # Two of three views of one truth are worse than three and far better than none.
    losses = [-np.log(p[np.arange(300), y]).mean() for p in (blender.predict_proba(members), result)]
    assert losses[1] < losses[0] + 0.1


@pytest.mark.parametrize("method", METHODS)
def test_members_that_were_fitted_by_name_are_matched_by_name(method, tmp_path):
    members, y = simulate(300, 3)
    members[1] = (members[1] + 1 / 3) / 2  # so that they do not count alike
    blender = Blender(method).fit(named(members), y)
    expected = blender.predict_proba(members)
    blender.save(tmp_path / "b.json")
    for one in (blender, Blender.load(tmp_path / "b.json")):
        assert one.member_names_ == ("p", "q", "r")
        shuffled = {"r": members[2], "p": members[0], "q": members[1]}
        assert (one.predict_proba(shuffled) == expected).all()
        moved = one.in_order_of(["r", "p", "q"])
        # Sums of numbers in another order are not the same to the last bit.
        np.testing.assert_allclose(moved.predict_proba(list(shuffled.values())), expected, atol=1e-12)
        assert (moved.predict_proba(named(members)) == moved.predict_proba(list(shuffled.values()))).all()
        assert moved.weights_.tolist() == one.weights_[[2, 0, 1]].tolist()
        assert one.member_names_ == ("p", "q", "r")
        assert one.in_order_of(("p", "q", "r")) is one


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["p", "s"], "fitted on 'p', 'q', got 'p', 's': 'q' is missing, 's' is unknown to it"),
        (["p"], "'q' is missing"),
        (["p", "q", "s"], "'s' is unknown"),
    ],
)
def test_members_of_other_names_are_refused(names, words):
    members, y = simulate(100, 2)
    blender = Blender("log").fit(named(members), y)
    with pytest.raises(InputError, match=words if len(names) > 1 else "'q' of 2 are missing"):
        blender.predict_proba({name: members[0] for name in names})
    with pytest.raises(ConfigError, match=words):
        blender.in_order_of(names)


def test_a_missing_scorer_is_named():
    members, y = simulate(300, 2)
    blender = Blender("linear").fit(named(members), y)
    with pytest.raises(InputError, match="scorers 'p' of 2 are missing"):
        blender.predict_proba({"q": members[1]})
    with pytest.warns(MissingMemberWarning, match="scorers 'q' of 2 are missing"):
        result = blender.predict_proba({"p": members[0]}, missing="renormalise")
    np.testing.assert_allclose(result, members[0], atol=1e-12)


def test_names_that_a_blender_does_not_know_are_not_matched_by_luck():
    members, y = simulate(100, 2)
    for blender in (Blender(weights=[0.9, 0.1]), Blender("log").fit(members, y), Blender(temperature=[1.0, 2.0])):
        with pytest.raises(InputError, match="does not know its members by name"):
            blender.predict_proba(named(members))
    with pytest.warns(MemberOrderWarning, match="in the order 'q', 'p'"):
        Blender("log").fit(members, y).in_order_of(["q", "p"])
    # All count alike: any order will do.
    assert Blender().in_order_of(["q", "p"]).predict_proba(named(members)) == pytest.approx(np.mean(members, axis=0))
    assert Blender().fit(members, y).in_order_of(["q", "p"])


def test_fixed_values_move_with_their_members():
    members, y = simulate(200, 2)
    blender = Blender("log", "bias", weights=[0.9, 0.2]).fit(named(members), y)
    moved = blender.in_order_of(["q", "p"])
    assert moved.get_params()["weights"] == [0.2, 0.9]
    assert blender.get_params()["weights"] == [0.9, 0.2]
    np.testing.assert_allclose(moved.predict_proba(members[::-1]), blender.predict_proba(members), atol=1e-12)


def test_misaligned_members_are_reported():
    members, y = simulate(1_000, 2)
    with pytest.warns(MemberWarning, match="scorer 1.*shuffling"):
        Blender("linear").fit([members[0], members[1][::-1]], y)


def test_importing_the_blender_loads_no_deep_learning_library():
    code = (
        "import sys, lmsys_ensemble.blending.blender as module; module.Blender(); "
        "print({'torch', 'transformers'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_no_warning_on_ordinary_data():
    members, y = simulate(500, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in METHODS:
            Blender(method).fit(members, y).predict_proba(members)
