import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from lmsys_ensemble.blending.blender import Blender, BlenderNotFittedError, MissingMemberWarning
from lmsys_ensemble.blending.diagnosis import MemberWarning
from lmsys_ensemble.blending.members import MemberOrderWarning
from lmsys_ensemble.blending.spec import METHODS
from lmsys_ensemble.errors import ConfigError, EnsembleError, InputError

from .conftest import simulate


def test_an_unfitted_blender_is_the_equal_average():
    members, _ = simulate(20, 3)
    blender = Blender()
    check_is_fitted(blender)
    assert np.allclose(blender.predict_proba(members), np.mean(members, axis=0), atol=1e-15)


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
        ({"sample_weight": [1.0]}, "one a row"),
        ({"sample_weight": np.full(30, 1e308)}, "sum is infinite"),
        ({"sample_weight": np.full(30, 1e150)}, r"sums to 3e\+151"),
        ({"sample_weight": np.full(30, 5e-324)}, "sums to"),
        ({"groups": [1]}, "one a row"),
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


def named(members):
    return {name: member for name, member in zip("pqrs", members, strict=False)}


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


def test_files_without_names_are_read_and_trust_the_order(tmp_path):
    members, y = simulate(100, 2)
    content = Blender("log").fit(named(members), y).to_dict()
    for key in ("members", "fingerprints", "classes"):
        del content["fitted"][key]
    del content["parameters"]["classes"]
    old = Blender.from_dict(content)
    assert (old.member_names_, old.fingerprints_, old.classes_.tolist()) == (None, {}, [0, 1, 2])
    assert (old.predict_proba(members) == Blender("log").fit(members, y).predict_proba(members)).all()
    with pytest.warns(MemberOrderWarning, match="does not know its members"):
        old.in_order_of(["p", "q"])


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


@pytest.mark.parametrize("method", METHODS)
def test_save_and_load(method, tmp_path):
    members, y = simulate(300, 2)
    blender = Blender(method, seed=np.int64(7), weights=None).fit(members, y)
    blender.save(tmp_path / "blender.json")
    loaded = Blender.load(tmp_path / "blender.json")
    assert loaded.get_params() == blender.get_params()
    assert (loaded.predict_proba(members) == blender.predict_proba(members)).all()
    assert loaded.to_dict() == blender.to_dict()
    if method == "auto":
        pd.testing.assert_frame_equal(loaded.selection_, blender.selection_)
    assert [path.name for path in tmp_path.iterdir()] == ["blender.json"]


def test_a_blender_of_fixed_and_fitted_values_is_saved(tmp_path):
    members, y = simulate(300, 2)
    blender = Blender("log", "after+bias", weights=[0.4, 0.5]).fit(members, y)
    blender.save(tmp_path / "b.json")
    loaded = Blender.load(tmp_path / "b.json")
    assert (loaded.predict_proba(members) == blender.predict_proba(members)).all()
    assert loaded.weights_.tolist() == [0.4, 0.5]


def test_an_unfitted_blender_is_saved_too(tmp_path):
    blender = Blender(weights=np.array([3, 1]), temperature=np.float32(2))
    blender.save(tmp_path / "b.json")
    loaded = Blender.load(tmp_path / "b.json")
    members, _ = simulate(5)
    assert (loaded.predict_proba(members) == blender.predict_proba(members)).all()
    assert not hasattr(loaded, "blend_")


def damaged(**changes):
    members, y = simulate(200, 2)
    return {**Blender("linear").fit(members, y).to_dict(), **changes}


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "blender.json"
    with pytest.raises(ConfigError, match="there is no blender"):
        Blender.load(path)
    good = damaged()
    fit = good["fitted"]
    for text, words in (
        ("{", "cannot be read"),
        ("[]", "expected a mapping"),
        (json.dumps(damaged(version=2)), "version"),
        (json.dumps(damaged(format="other")), "format"),
        (json.dumps(damaged(parameters={**good["parameters"], "metod": 1})), "did you mean 'method'"),
        (json.dumps(damaged(fitted={**fit, "blend": {**fit["blend"], "weights": [-1, 2]}})), "at least 0"),
        (json.dumps(damaged(fitted={**fit, "blend": {**fit["blend"], "weights": ["x"]}})), "weights"),
        (json.dumps(damaged(fitted={**fit, "members": ["a"]})), "names 1 members, its values are for 2"),
        (json.dumps(damaged(fitted={**fit, "members": ["a", "a"]})), "different names"),
        (json.dumps(damaged(fitted={**fit, "n_classes": 10**9})), r"fitted\.n_classes: .*less than or equal to 1000"),
        (json.dumps(damaged(fitted={**fit, "n_classes": -1})), r"fitted\.n_classes: .*greater than or equal to 2"),
        (json.dumps(damaged(fitted={**fit, "classes": ["a", "b"]})), "names 2 classes, its values are for 3"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            Blender.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "blender.json"
    Blender().save(path)
    before = path.read_text()
    with pytest.raises(ConfigError):
        Blender(weights="wrong").save(path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["blender.json"]


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
