import json

import numpy as np

from lmsys_ensemble.training.labelling_report import KEPT, REASONS, make_report

LABELS = np.array([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.3, 0.35, 0.35]])


def test_rows_are_counted_by_what_became_of_them_by_class_and_by_confidence():
    report = make_report([7, 8, 9, 10], [KEPT, "confidence", "overlap", KEPT], LABELS, ("a", "b", "tie"))
    assert report.counts() == {KEPT: 2, "overlap": 1, "confidence": 1}
    values = report.to_dict()
    assert values["dropped"] == {"overlap": [9], "confidence": [8]}
    assert values["by_class"] == {
        "a": {"rows": 2, "kept": 1, "dropped": {"confidence": 1}},
        "b": {"rows": 2, "kept": 1, "dropped": {"overlap": 1}},
        "tie": {"rows": 0, "kept": 0, "dropped": {}},
    }
    assert list(values["by_confidence"]) == ["below 0.40", "0.40 to 0.50", "0.50 to 0.60", "0.90 to 0.95"]
    assert values["mean_label"] == {"a": 0.6, "b": 0.2, "tie": 0.2}
    assert json.loads(json.dumps(values)) == values


def test_the_text_lists_the_first_ids_of_every_reason():
    reasons = [KEPT] + ["confidence"] * 30
    report = make_report([f"r{row}" for row in range(31)], reasons, np.tile(LABELS[:1], (31, 1)), ("a", "b", "tie"))
    text = report.to_text()
    assert "31 rows, 1 kept, 30 dropped" in text
    assert f"    30  {REASONS['confidence']}: r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, …" in text
    assert "r11" not in text
    assert "mean label of the rows kept: a 0.900, b 0.050, tie 0.050" in text


def test_where_nothing_is_kept_there_is_no_mean():
    report = make_report([1], ["overlap"], LABELS[:1], ("a", "b", "tie"))
    assert report.mean_label is None
    assert "mean label" not in report.to_text()
