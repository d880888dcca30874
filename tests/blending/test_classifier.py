"""The blender in scikit-learn's own tools."""

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    RandomizedSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    permutation_test_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.blending.spec import METHODS
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.evaluation.metrics import accuracy, log_loss

from .conftest import simulate

N_ROWS = 300
NAMES = np.array(["model_a", "model_b", "tie"])


@pytest.fixture(scope="module")
def rows():
    members, y = simulate(N_ROWS, 2)
    return np.stack(members, axis=1), y


def test_it_is_a_classifier_of_arrays_with_three_axes():
    tags = get_tags(Blender())
    assert is_classifier(Blender())
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array


@pytest.mark.parametrize("method", METHODS)
def test_an_array_says_the_same_as_the_list(rows, method):
    array, y = rows
    members = list(np.moveaxis(array, 1, 0))
    by_array, by_list = Blender(method).fit(array, y), Blender(method).fit(members, y)
    assert by_array.blend_.to_dict() == by_list.blend_.to_dict()
    assert (by_array.predict_proba(array) == by_list.predict_proba(members)).all()


def test_an_array_that_is_laid_out_otherwise_is_refused(rows):
    array, y = rows
    wrong = np.moveaxis(array, 1, 0)
    with pytest.raises(InputError, match="members came first"):
        Blender("log").fit(wrong, y)
    with pytest.raises(InputError, match="members came first"):
        Blender("log").fit(array, y).predict_proba(wrong)
    with pytest.raises(InputError, match="members came first"):
        Blender(weights=[1, 2]).predict_proba(wrong)
    with pytest.raises(InputError, match="members came first"):
        Blender().predict_proba(wrong)


@pytest.mark.parametrize("labels", [lambda y: y, lambda y: NAMES[y]], ids=["positions", "names"])
def test_cross_validation(rows, labels):
    array, y = rows
    folds = StratifiedKFold(4)
    scores = cross_val_score(Blender("log"), array, labels(y), cv=folds, scoring="neg_log_loss")
    for score, (seen, held) in zip(scores, folds.split(array, y), strict=True):
        by_hand = Blender("log").fit(array[seen], y[seen]).predict_proba(array[held])
        assert score == pytest.approx(-log_loss(np.eye(3)[y[held]], by_hand))
    accuracies = cross_val_score(Blender("log"), array, labels(y), cv=folds)
    predicted = cross_val_predict(Blender("log"), array, labels(y), cv=folds)
    assert accuracies.mean() == pytest.approx((predicted == labels(y)).mean(), abs=0.01)
    shares = cross_val_predict(Blender("log"), array, labels(y), cv=folds, method="predict_proba")
    assert -np.log(shares[np.arange(N_ROWS), y]).mean() == pytest.approx(-scores.mean(), abs=0.01)


def test_groups_stay_together_and_reach_the_fit(rows):
    array, y = rows
    groups = np.arange(N_ROWS) // 3
    result = cross_validate(
        Blender("auto"), array, NAMES[y], groups=groups, cv=GroupKFold(3), scoring="neg_log_loss",
        params={"groups": groups}, return_estimator=True, error_score="raise",
    )  # fmt: skip
    assert len(result["test_score"]) == 3
    for one, (seen, _) in zip(result["estimator"], GroupKFold(3).split(array, y, groups), strict=True):
        expected = Blender("auto").fit(array[seen], y[seen], groups=groups[seen])
        assert one.selection_.equals(expected.selection_)


def test_a_search_finds_the_method_and_predicts(rows):
    array, y = rows
    grid = {"method": ["equal", "log", "stack"], "l2": [0.1, 1.0], "swap_equivariant": [True, False]}
    search = GridSearchCV(Blender(), grid, scoring="neg_log_loss", cv=3, error_score="raise").fit(array, NAMES[y])
    assert search.classes_.tolist() == NAMES.tolist()
    assert set(search.predict(array)) <= set(NAMES)
    assert search.score(array, NAMES[y]) == pytest.approx(
        -log_loss(np.eye(3)[y], search.best_estimator_.predict_proba(array))
    )
    assert RandomizedSearchCV(Blender("log"), {"l2": [0.1, 1, 10]}, n_iter=2, cv=2).fit(array, y).best_score_ > 0.4
    assert permutation_test_score(Blender("log"), array, y, cv=2, n_permutations=3)[0] > 0.4
    assert make_pipeline(Blender("linear")).fit(array, y).predict(array).shape == (N_ROWS,)


def test_soft_labels_can_be_cross_validated(rows):
    array, y = rows
    soft = 0.7 * np.eye(3)[y] + 0.1
    scores = cross_val_score(Blender("log"), array, soft, cv=2)
    assert ((scores > 0.3) & (scores < 1)).all()


def test_predictions_are_named_as_the_labels_were(rows, tmp_path):
    array, y = rows
    blender = Blender("log").fit(array, NAMES[y])
    assert blender.classes_.tolist() == NAMES.tolist()
    assert blender.predict(array).tolist() == NAMES[blender.predict_proba(array).argmax(axis=1)].tolist()
    blender.save(tmp_path / "b.json")
    assert Blender.load(tmp_path / "b.json").predict(array).tolist() == blender.predict(array).tolist()
    assert Blender("log").fit(array, y).predict(array).dtype.kind == "i"
    mirrored = Blender("log", classes=["tie", "model_b", "model_a"]).fit(array[:, :, ::-1], NAMES[y])
    assert mirrored.predict(array[:, :, ::-1]).tolist() == blender.predict(array).tolist()
    assert clone(mirrored).get_params()["classes"] == ["tie", "model_b", "model_a"]
    mirrored.save(tmp_path / "m.json")
    assert Blender.load(tmp_path / "m.json").get_params() == mirrored.get_params()
    assert Blender().predict(array).tolist() == array.mean(axis=1).argmax(axis=1).tolist()
    assert set(Blender(classes=["x", "y", "z"]).predict(array)) <= set("xyz")


def test_the_score_is_the_accuracy(rows):
    array, y = rows
    blender = Blender("log").fit(array, NAMES[y])
    expected = accuracy(np.eye(3)[y], blender.predict_proba(array))
    assert blender.score(array, NAMES[y]) == pytest.approx(expected)
    assert blender.score(array, np.eye(3)[y]) == pytest.approx(expected)
    # A part of the rows need not hold all classes.
    one = y == 0
    assert blender.score(array[one], NAMES[y[one]]) == pytest.approx((blender.predict(array[one]) == "model_a").mean())
    doubled = blender.score(array, NAMES[y], sample_weight=np.where(one, 2.0, 1.0))
    right = blender.predict(array) == NAMES[y]
    assert doubled == pytest.approx((right.sum() + right[one].sum()) / (N_ROWS + one.sum()))
    assert Blender().score(array, y) == pytest.approx((array.mean(axis=1).argmax(axis=1) == y).mean())
