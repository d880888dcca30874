"""What is reported of cleaning, as values and as text."""

import json

import numpy as np

from lmsys_ensemble.cleaning.hygiene import clean
from lmsys_ensemble.cleaning.report import REASONS
from tests.cleaning.test_hygiene import CONTRADICTING, A, B, labels_of, make_table


def test_copies_that_contradict_each_other_are_reported_in_one_order():
    cleaned, report = clean(make_table(*CONTRADICTING))
    (found,) = report.contradictions
    assert found.ids == [100, 101, 102]
    assert found.labels == [A, B, A]
    np.testing.assert_allclose(labels_of(cleaned)[100], [2 / 3, 1 / 3, 0])
    assert report.ids("relabelled", "contradiction") == [100]


def test_label_balance_is_reported_by_source_and_language():
    table = make_table(
        ("Привет", "x", "y", "A"), ("Hello", "x", "y", "B"), ("Hello", "x", "z", "tie"), ("Hello", "", "", "tie"),
        source=["one", "two", None, "two"],
    )  # fmt: skip
    _, report = clean(table)
    assert report.balance["before"]["rows"] == 4
    assert report.balance["after"] == {
        "rows": 3, "shares": {"model_a": 0.3333, "model_b": 0.3333, "tie": 0.3333},
    }  # fmt: skip
    assert {source: values["rows"] for source, values in report.balance["source"].items()} == {
        "one": 1, "two": 1, "unknown": 1,
    }  # fmt: skip
    assert report.balance["language"]["cyrillic"]["shares"]["model_a"] == 1
    _, report = clean(table.assign(language=["Russian", "English", "English", ""]))
    assert set(report.balance["language"]) == {"Russian", "English"}
    assert report.language_from == "the column language"


def test_the_report_names_every_row_as_text_and_as_json():
    rows = [("p", "x", "y", "A")] * 14 + [("q", "same", "same", "B")]
    _, report = clean(make_table(*rows))
    values = json.loads(json.dumps(report.to_dict()))
    assert values["rows_before"] == 15
    assert values["rows_after"] == 2
    assert values["counts"]["dropped"] == {"duplicate": 13}
    dropped = [change["id"] for change in values["changes"] if change["action"] == "dropped"]
    assert dropped == list(range(101, 114))
    text = report.to_text()
    assert "15 rows, 13 dropped, 2 left" in text
    assert "101 (as 100), 102 (as 100)" in text
    assert ", …" in text
    assert REASONS["identical"] in text
