import numpy as np
import pytest

from lmsys_ensemble.blending.selection import (
    CANDIDATES,
    MIN_GROUPS,
    candidate_specs,
    cross_fit,
    select_spec,
)
from lmsys_ensemble.blending.spec import BlendSpec
from lmsys_ensemble.evaluation.folds import group_folds
from lmsys_ensemble.evaluation.intervals import paired_difference
from lmsys_ensemble.evaluation.metrics import row_log_losses
from lmsys_ensemble.probabilities import check_labels, softmax

from .conftest import simulate


def select(members, y, codes=None, specs=None, **settings):
    labels = check_labels(y, n_classes=3)
    codes = np.arange(len(y)) if codes is None else codes
    specs = specs or candidate_specs(len(members), 3)
    return select_spec(specs, members, labels, np.ones(len(y)), codes, **settings)


def test_candidates_come_by_simplicity_and_the_equal_blend_first():
    specs = candidate_specs(3, 3)
    counts = [spec.n_parameters(3, 3) for spec in specs]
    assert counts == sorted(counts)
    assert (specs[0].method, specs[0].calibration) == ("equal", "none")
    assert len(specs) == len(CANDIDATES)


def test_candidates_stay_within_the_calibration_asked_for():
    assert {spec.calibration for spec in candidate_specs(2, 3, "none")} == {"none"}
    assert {spec.calibration for spec in candidate_specs(2, 3, "after")} == {"none", "after"}
    assert {spec.method for spec in candidate_specs(1, 3)} == {"equal", "stack"}


@pytest.mark.parametrize("seed", range(8))
def test_fifty_rows_leave_the_equal_blend(seed):
    members, y = simulate(50, 3, seed=seed)
    spec, table = select([softmax(2 * np.log(member)) for member in members], y)
    assert (spec.method, spec.calibration) == ("equal", "none")
    assert table.loc[table.selected, "method"].tolist() == ["equal"]


def test_the_equal_blend_stays_where_nothing_is_gained():
    # The average of the scorers is the truth that the labels are drawn from.
    (truth,), y = simulate(3_000, 1, noise=0.0)
    spec, table = select([truth, truth], y)
    assert spec.method == "equal"
    assert spec.calibration == "none"
    assert len(table) == len(CANDIDATES)


def test_a_clear_gain_is_taken():
    (truth,), y = simulate(3_000, 1, noise=0.0)
    useless = np.random.default_rng(0).dirichlet([1, 1, 1], 3_000)
    spec, table = select([truth, useless], y)
    chosen = table.loc[table.selected].iloc[0]
    assert spec.method == chosen.method != "equal"
    assert chosen.high < 0
    assert chosen.gap <= chosen.gap_error


def test_the_simplest_of_equals_is_taken():
    (truth,), y = simulate(3_000, 1, noise=0.0)
    useless = np.random.default_rng(0).dirichlet([1, 1, 1], 3_000)
    specs = [BlendSpec(), BlendSpec("linear"), BlendSpec("linear")]
    spec, table = select([truth, useless], y, specs=specs)
    assert spec is specs[1]
    assert table.loc[2, "gap"] == table.loc[1, "gap"] == 0


def test_the_rule_holds_in_the_table():
    members, y = simulate(600, 3, noise=2.0)
    spec, table = select(members, y)
    in_choice = (table.gap <= table.gap_error) & (table.high < 0)
    expected = 0 if table.gap[0] <= table.gap_error[0] or not in_choice.any() else int(in_choice.argmax())
    assert table.selected.argmax() == expected
    assert table.selected.sum() == 1
    assert spec.method == table.method[expected]
    assert table.gap.min() == 0
    assert table.difference[0] == table.low[0] == table.high[0] == 0
    assert ((table.low <= table.difference) & (table.difference <= table.high)).all()


def test_the_simplest_certain_gain_is_taken_where_choosing_is_not_certain_to_gain():
    members, y = simulate(300, 2, seed=46)
    members = [
        softmax(0.6 * np.log(member) + sign * np.array([0.3, -0.1, -0.2]))
        for sign, member in zip((-1, 1), members, strict=True)
    ]
    spec, table = select(members, y)
    by_standard_error = int(((table.gap <= table.gap_error) & (table.high < 0)).argmax())
    assert table.method[by_standard_error] == "log"
    assert table.selected.argmax() == int((table.high < 0).argmax()) < by_standard_error
    assert (spec.method, spec.calibration) == ("equal", "after")
    # What the choice by the standard error is worth, every row by what would be chosen without its fold.
    labels, folds = check_labels(y, n_classes=3), group_folds(np.arange(300), 5)
    specs = candidate_specs(2, 3)
    losses = np.column_stack([
        row_log_losses(labels, cross_fit(one, members, labels, np.ones(300), folds)) for one in specs
    ])  # fmt: skip
    chosen = np.empty(300)
    for fold in range(5):
        held = folds == fold
        errors = losses[~held]
        gaps = errors - errors[:, [errors.mean(axis=0).argmin()]]
        near = gaps.mean(axis=0) <= gaps.std(axis=0, ddof=1) / np.sqrt(len(errors)) + 1e-15
        certain = [paired_difference(column, errors[:, 0]).high < 0 for column in errors.T]
        chosen[held] = losses[held, 0 if near[0] else int((near & certain).argmax())]
    assert paired_difference(chosen, losses[:, 0]).high >= 0


def test_predictions_of_a_fold_do_not_see_its_labels():
    members, y = simulate(400, 2)
    labels, folds, weights = check_labels(y, n_classes=3), group_folds(np.arange(400), 4), np.ones(400)
    spec = BlendSpec("stack", "bias")
    predicted = cross_fit(spec, members, labels, weights, folds)
    changed = labels.copy()
    changed[folds == 2] = changed[folds == 2][:, [1, 2, 0]]
    again = cross_fit(spec, members, changed, weights, folds)
    assert np.array_equal(predicted[folds == 2], again[folds == 2])
    assert not np.allclose(predicted[folds == 1], again[folds == 1])
    assert np.allclose(predicted.sum(axis=1), 1)


def test_losses_are_out_of_fold_and_groups_stay_together():
    members, y = simulate(300, 2)
    codes = np.arange(300) // 3
    _, table = select(members, y, codes, n_folds=5, seed=3)
    labels, folds = check_labels(y, n_classes=3), group_folds(codes, 5, 3)
    assert all(len(np.unique(folds[codes == code])) == 1 for code in range(100))
    expected = row_log_losses(labels, cross_fit(BlendSpec("stack", "bias"), members, labels, np.ones(300), folds))
    assert table.log_loss[table.method == "stack"].item() == pytest.approx(expected.mean(), abs=1e-12)


def test_few_groups_count_as_few_rows():
    (truth,), y = simulate(2_000, 1, noise=0.0)
    useless = np.random.default_rng(0).dirichlet([1, 1, 1], 2_000)
    assert select([truth, useless], y)[0].method != "equal"
    codes = np.arange(2_000) % (MIN_GROUPS - 1)
    assert select([truth, useless], y, codes)[0].method == "equal"
    assert select([truth, useless], y, np.arange(2_000) % 2)[0].method == "equal"


def test_rows_of_weight_zero_do_not_count():
    members, y = simulate(400, 2)
    labels, codes = check_labels(y, n_classes=3), np.arange(400)
    weights = np.ones(400)
    weights[:40] = 0
    specs = candidate_specs(2, 3)
    _, table = select_spec(specs, members, labels, weights, codes)
    labels[:40] = labels[:40][:, [1, 2, 0]]
    _, other = select_spec(specs, members, labels, weights, codes)
    assert np.allclose(table.log_loss, other.log_loss, atol=1e-12)
    assert np.allclose(table.gap_error, other.gap_error, atol=1e-12)
