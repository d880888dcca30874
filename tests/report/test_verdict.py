import numpy as np
import pytest

from lmsys_ensemble import Blender
from lmsys_ensemble.report import write_report
from tests.predicted import predictions
from tests.report.conftest import cells_of, section_of, shown, text_of


def test_the_two_estimates_stand_side_by_side_with_their_meaning(whole):
    findings, page = whole
    short = section_of(page, "short")
    assert findings.is_nested
    ((nested, difference, means),) = cells_of(short, "nested")
    assert nested == shown(findings.blend.figure("log_loss")[0])
    assert difference == shown(findings.blend.to_equal.mean)
    assert "estimate that this page goes by" in means
    ((plain, difference, means),) = cells_of(short, "plain")
    chosen = findings.methods[findings.methods["selected"]].iloc[0]
    assert (plain, difference) == (shown(chosen["log_loss"]), shown(chosen["difference"]))
    assert "as settled beforehand" in means
    assert "These are plain estimates" in text_of(section_of(page, "methods"))
    assert "log loss, blend, nested estimate" in text_of(short)


@pytest.mark.parametrize("blender", [Blender("log"), Blender(weights=[2, 1])])
def test_what_was_not_chosen_has_one_estimate(given, tmp_path, blender):
    members, labels, _ = given
    write_report(tmp_path / "r.html", members, labels, blender=blender)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert cells_of(section_of(page, "short"), "plain") == []
    assert "nested" not in text_of(section_of(page, "short"))
    assert "(what auto would choose)" in text_of(section_of(page, "methods"))
    assert "(chosen)" not in text_of(section_of(page, "methods"))


def test_the_headline_says_why_only_the_average_was_tried(tmp_path):
    members, labels = predictions(60)
    write_report(tmp_path / "few.html", members, labels)
    headline = section_of((tmp_path / "few.html").read_text(encoding="utf-8"), "short").find("p")
    assert "With 60 groups of rows methods cannot be told apart, so the equal average is kept" in text_of(headline)
    assert "better beyond chance" not in text_of(headline)


def test_the_headline_of_an_average_that_other_folds_did_not_choose_does_not_contradict_itself(tmp_path):
    # On all rows the average is kept; some folds take another method.
    members, labels = predictions(220, noises=(0.5, 1.2), seed=2)
    findings = write_report(tmp_path / "r.html", members, labels)
    assert findings.blender.method_ == "equal"
    assert {one.method_ for one in findings.cross_fit.blenders} > {"equal"}
    headline = text_of(section_of((tmp_path / "r.html").read_text(encoding="utf-8"), "short").find("p"))
    assert "The blend is: equal average" in headline
    assert "choosing anew without each fold, which took another method in some" in headline
    assert "is the better choice" not in headline


def test_a_member_that_is_the_labels_is_called_a_leak_before_all_else(tmp_path):
    members, labels = predictions(120)
    findings = write_report(tmp_path / "r.html", {**members, "truth": np.eye(3)[labels]}, labels)
    assert findings.leaks == ("truth",)
    first = section_of((tmp_path / "r.html").read_text(encoding="utf-8"), "short").find("p")
    assert first.get("class") == "alert"
    assert text_of(first).startswith("These figures mean nothing, because a member knows the labels (a leak): truth.")
    assert any(warning.startswith("truth is a leak") for warning in findings.warnings)
