import numpy as np
import pytest

from lmsys_ensemble import Blender
from lmsys_ensemble.blending.crossfit import cross_fit_blender
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.metrics import log_loss
from lmsys_ensemble.schema import TWO_WAY
from tests.predicted import predictions
from tests.report.conftest import QUICK, findings_of


def test_the_blend_is_measured_out_of_fold_and_members_as_they_are(whole, given):
    findings, _ = whole
    members, labels, more = given
    truth, arrays = np.eye(3)[labels], list(members.values())
    held = cross_fit_blender(Blender("auto"), arrays, truth, more["groups"]).predict_proba(arrays)
    assert findings.blend.figure("log_loss")[0] == pytest.approx(log_loss(truth, held))
    for model, array in zip(findings.members, arrays, strict=True):
        assert model.figure("log_loss")[0] == pytest.approx(log_loss(truth, array))
    equal = log_loss(truth, np.mean(arrays, axis=0))
    assert findings.equal.figure("log_loss")[0] == pytest.approx(equal)
    assert findings.blend.to_equal.mean == pytest.approx(log_loss(truth, held) - equal)


def test_a_blender_that_learnt_these_rows_is_not_measured_on_what_it_learnt(tmp_path, given):
    members, labels, _ = given
    few = {name: member[:80] for name, member in members.items()}
    blender = Blender("stack", l2=0, n_folds=2).fit(list(few.values()), labels[:80])
    findings = findings_of(tmp_path, few, labels[:80], blender=blender)
    assert findings.blend.figure("log_loss")[0] > blender.log_loss_ + 0.02
    np.testing.assert_array_equal(findings.blender.weights_, blender.weights_)


def test_a_blender_fitted_elsewhere_is_measured_as_it_is(tmp_path, given):
    members, labels, _ = given
    first, second = ({name: member[part] for name, member in members.items()} for part in (slice(200), slice(200, 400)))
    blender = Blender("log", n_folds=2).fit(list(first.values()), labels[:200])
    findings = findings_of(tmp_path, second, labels[200:], blender=blender, fitted_elsewhere=True)
    expected = log_loss(np.eye(3)[labels[200:]], blender.predict_proba(list(second.values())))
    assert findings.blend.figure("log_loss")[0] == pytest.approx(expected)
    assert "said to be fitted on other rows" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("blender", "words"),
    [
        (Blender(weights=[0.7, 0.3], temperature=1.2, n_folds=2), "fixed by hand"),
        (Blender("log", "bias", n_folds=2), "was asked for"),
        (QUICK, "was asked for"),
    ],
)
def test_any_blender_can_be_reported_on(tmp_path, given, blender, words):
    members, labels, _ = given
    findings = findings_of(tmp_path, members, labels, blender=blender)
    assert words in findings.why
    assert not hasattr(blender, "blend_"), "what is passed in is not changed"


def test_parts_of_the_rows_add_up_to_the_whole(whole):
    findings, _ = whole
    assert set(findings.slices) - {"Language"} == {"Length in characters", "Number of turns", "Source"}
    for rows in findings.slices.values():
        counts = [row.n_rows for row in rows]
        assert sum(counts) == findings.inputs.n_rows
        assert np.average([row.blend for row in rows], weights=counts) == pytest.approx(
            findings.blend.figure("log_loss")[0]
        )


def test_swap_figures_are_those_of_their_definitions(whole, given):
    findings, _ = whole
    members, labels, more = given
    truth = np.eye(3)[labels]
    assert [swap.model.name for swap in findings.swaps] == ["m0", "m1", "equal average", "blend"]
    first, swapped = members["m0"], more["swapped"]["m0"]
    swap = findings.swaps[0]
    both = (first + swapped[:, [1, 0, 2]]) / 2
    assert swap.averaged == pytest.approx(log_loss(truth, both))
    assert swap.gain.mean == pytest.approx(log_loss(truth, both) - log_loss(truth, first))
    bonus = (first[:, 0] - first[:, 1] + swapped[:, 0] - swapped[:, 1]).mean() / 2
    assert swap.first_bonus == pytest.approx(bonus)
    assert swap.first_bonus > 0


def test_a_mirror_image_is_perfectly_consistent(tmp_path, given):
    members, labels, _ = given
    mirrored = {name: member[:, [1, 0, 2]] for name, member in members.items()}
    findings = findings_of(tmp_path, members, labels, swapped=mirrored, blender=QUICK)
    for swap in findings.swaps:
        assert swap.model.figure("swap_flip_rate")[0] == 0
        assert swap.first_bonus == pytest.approx(0)
        assert swap.gain.mean == pytest.approx(0)


def test_soft_labels_and_two_classes_work(tmp_path):
    members, labels = predictions(150, n_classes=2)
    soft = np.where(np.eye(2)[labels] == 1, 0.8, 0.2)
    findings = findings_of(tmp_path, members, soft, task=TWO_WAY, blender=QUICK)
    page = (tmp_path / "report.html").read_text()
    assert "Some labels are soft" in page
    assert "tie" not in findings.inputs.task.classes
    assert "predicted: tie" not in page


def test_wrong_settings_are_refused(tmp_path, given):
    members, labels, _ = given
    with pytest.raises(ConfigError, match="n_worst must be at least 0, got -1"):
        findings_of(tmp_path, members, labels, n_worst=-1)
    with pytest.raises(ConfigError, match="pass a fitted one"):
        findings_of(tmp_path, members, labels, blender=Blender("log"), fitted_elsewhere=True)
    other = Blender("log").fit([*members.values(), members["m0"]], labels)
    with pytest.raises(InputError, match="2 scorers, the blender has 3"):
        findings_of(tmp_path, members, labels, blender=other)


def test_a_blender_is_matched_to_the_members_by_name(tmp_path, given):
    members, labels, _ = given
    blender = Blender("log", "bias", weights=[0.9, 0.2]).fit(members, labels)
    turned = dict(reversed(members.items()))
    findings = findings_of(tmp_path, turned, labels, blender=blender, fitted_elsewhere=True)
    assert findings.blender.member_names_ == ("m1", "m0")
    assert findings.blend.figure("log_loss")[0] == pytest.approx(blender.log_loss_)
    # What is fitted anew in folds keeps the fixed weights with their members.
    folds = findings_of(tmp_path, turned, labels, blender=blender).cross_fit.blenders
    assert {tuple(one.weights_) for one in folds} == {(0.2, 0.9)}
    with pytest.raises(ConfigError, match="'m1' is missing, 'other' is unknown to it"):
        findings_of(tmp_path, {"m0": members["m0"], "other": members["m1"]}, labels, blender=blender)
    nameless = Blender("log").fit(list(members.values()), labels)
    findings = findings_of(tmp_path, members, labels, blender=nameless)
    assert any("in the order 'm0', 'm1'" in warning for warning in findings.warnings)
