"""What blending gains on real predictions; skipped where the file is not at hand."""

import numpy as np
import pytest

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.evaluation.folds import group_folds
from lmsys_ensemble.evaluation.intervals import paired_difference


def out_of_fold_losses(method, calibration, members, y, n_folds=5):
    folds = group_folds(np.arange(len(y)), n_folds)
    losses = np.empty(len(y))
    for fold in range(n_folds):
        held = folds == fold
        blender = Blender(method, calibration).fit([p[~held] for p in members], y[~held])
        predicted = blender.predict_proba([p[held] for p in members])
        losses[held] = -np.log(predicted[np.arange(held.sum()), y[held]])
    return losses


def test_blending_gains_on_held_out_rows(competition_rows):
    members, y = competition_rows
    equal = out_of_fold_losses("equal", None, members, y)
    for method in ("log", "stack"):
        difference = paired_difference(out_of_fold_losses(method, None, members, y), equal)
        assert difference.mean < -0.0015
        assert difference.high < 0
    assert paired_difference(out_of_fold_losses("auto", None, members, y), equal).mean < -0.0015


@pytest.mark.parametrize("seed", range(5))
def test_fifty_rows_are_not_enough_to_leave_the_equal_blend(competition_rows, seed):
    members, y = competition_rows
    rows = np.random.default_rng(seed).choice(len(y), 50, replace=False)
    blender = Blender("auto").fit([member[rows] for member in members], y[rows])
    assert (blender.method_, blender.calibration_) == ("equal", "none")
