import numpy as np
import pytest

from lmsys_ensemble import Blender
from lmsys_ensemble.blending.crossfit import cross_fit_blender
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.evaluation.metrics import log_loss
from tests.predicted import predictions


def data(n_rows=600, **settings):
    members, labels = predictions(n_rows, **settings)
    return list(members.values()), np.eye(3)[labels]


def test_no_row_is_predicted_by_a_blender_that_saw_its_label():
    members, labels = data()
    cross_fit = cross_fit_blender(Blender("stack", l2=0), members, labels)
    plain = cross_fit.predict_proba(members)
    changed = labels.copy()
    changed[cross_fit.folds == 2] = np.roll(changed[cross_fit.folds == 2], 1, axis=1)
    again = cross_fit_blender(Blender("stack", l2=0), members, changed).predict_proba(members)
    held = cross_fit.folds == 2
    np.testing.assert_array_equal(again[held], plain[held])
    assert np.abs(again[~held] - plain[~held]).max() > 0.01


def test_it_is_what_fitting_by_hand_gives():
    members, labels = data()
    cross_fit = cross_fit_blender(Blender("log", "bias"), members, labels)
    seen = cross_fit.folds != 0
    by_hand = Blender("log", "bias").fit([member[seen] for member in members], labels[seen])
    expected = by_hand.predict_proba([member[~seen] for member in members])
    np.testing.assert_allclose(cross_fit.predict_proba(members)[~seen], expected)


def test_groups_stay_together_and_the_choice_of_auto_is_repeated():
    members, labels = data(800)
    groups = np.arange(800) // 4
    cross_fit = cross_fit_blender(Blender("auto"), members, labels, groups)
    assert len(cross_fit.blenders) == 5
    assert all(len(set(cross_fit.folds[groups == group])) == 1 for group in range(200))
    assert all(blender.selection_ is not None for blender in cross_fit.blenders)


@pytest.mark.parametrize("blender", [Blender(), Blender(weights=[0.7, 0.3], temperature=1.1)])
def test_what_has_nothing_to_learn_is_used_as_it_is(blender):
    members, labels = data(50)
    cross_fit = cross_fit_blender(blender, members, labels)
    assert not cross_fit.is_fitted
    np.testing.assert_array_equal(cross_fit.predict_proba(members), blender.predict_proba(members))


def test_what_was_learnt_before_does_not_count():
    members, labels = data(400)
    spoilt = Blender("linear").fit(members[::-1], labels)
    fresh = cross_fit_blender(Blender("linear"), members, labels).predict_proba(members)
    np.testing.assert_array_equal(cross_fit_blender(spoilt, members, labels).predict_proba(members), fresh)


def test_the_same_rows_with_the_responses_swapped_get_the_same_blenders():
    members, labels = data(400)
    cross_fit = cross_fit_blender(Blender("stack", swap_equivariant=True), members, labels)
    swapped = cross_fit.predict_proba([member[:, [1, 0, 2]] for member in members])
    np.testing.assert_allclose(swapped[:, [1, 0, 2]], cross_fit.predict_proba(members))


def test_fewer_groups_than_folds_are_folds_each_and_one_group_is_refused():
    members, labels = data(60)
    assert len(cross_fit_blender(Blender("log"), members, labels, np.arange(60) % 3).blenders) == 3
    with pytest.raises(InputError, match="cannot deal 1 groups"):
        cross_fit_blender(Blender("log"), members, labels, np.zeros(60))


def test_it_is_less_flattering_than_the_fit():
    members, labels = data(150, noises=(1.0, 2.0, 3.0))
    blender = Blender("stack", l2=0)
    held = cross_fit_blender(blender, members, labels).predict_proba(members)
    assert log_loss(labels, held) > blender.fit(members, labels).log_loss_
