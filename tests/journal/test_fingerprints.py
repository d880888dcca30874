"""Fingerprints of scorers: what differs between those of a run directory and those it is opened with."""

import json
from pathlib import Path

import pytest

from lmsys_ensemble.errors import ContractError, JournalError
from lmsys_ensemble.journal.journal import Journal
from tests.journal.journal_writer import put, rows_of

GEMMA = {"class": "m:Gemma", "recipe": {"max_tokens": 1024, "classes": ["a", "b"]}, "merge": None, "scale": 1}


def changed(**settings):
    return {"gemma": {**GEMMA, **settings}}


@pytest.mark.parametrize(
    ("fingerprints", "words"),
    [
        (changed(recipe={"max_tokens": 2048, "classes": ["a", "b"]}), ["recipe.max_tokens was 1024, is 2048"]),
        (changed(recipe={"max_tokens": 1024, "classes": ["b", "a"]}), ['recipe.classes was ["a", "b"], is ["b", "a"]']),
        (changed(recipe={"classes": ["a", "b"], "bos": True}), ["recipe.max_tokens was 1024, is not set",
                                                                "recipe.bos was not set, is true"]),
        (changed(recipe=None), ["recipe was not set, is null", "recipe.max_tokens was 1024, is not set"]),
        (changed(merge=False), ["merge was null, is false"]),
        (changed(scale=1.0, merge=True), ["scale was 1, is 1.0", "merge was null, is true"]),
        (changed(scale=True), ["scale was 1, is true"]),
    ],
)  # fmt: skip
def test_other_settings_are_refused_and_every_difference_is_named(folder, fingerprints, words):
    with Journal.open(folder, {"gemma": GEMMA, "other": {"seed": 1}}) as journal:
        put(journal, rows_of(0)[:1], [1], scorer="gemma")
    with pytest.raises(JournalError) as caught:
        Journal.open(folder, {**fingerprints, "other": {"seed": 1}})
    for difference in words:
        assert f"scorer 'gemma': {difference}" in str(caught.value)
    assert str(caught.value).count("scorer '") == str(caught.value).count(" was ")
    assert "'other'" not in str(caught.value)
    assert "old settings, give another run directory, or pass rescore=True to score anew" in str(caught.value)
    with Journal.open(folder, {"gemma": GEMMA}) as journal:  # nothing was changed, and nothing is locked
        assert len(journal.finished("gemma")) == 1


def test_all_scorers_that_differ_are_named(folder):
    Journal.open(folder, {"a": {"seed": 1}, "b": {"seed": 1}}).close()
    with pytest.raises(JournalError, match=r"'a': seed was 1, is 2; scorer 'b': seed was 1, is 3\. Go on"):
        Journal.open(folder, {"a": {"seed": 2}, "b": {"seed": 3}})


def test_rescoring_sets_old_results_aside_until_their_settings_come_back(folder):
    rows = rows_of(0)[:2]
    with Journal.open(folder, {"a": {"seed": 1}}) as journal:
        put(journal, rows, [1, 1], scorer="a")
    with Journal.open(folder, {"a": {"seed": 2}}, rescore=True) as journal:
        assert len(journal.finished("a")) == 0
        put(journal, rows[:1], [2], scorer="a")
    with Journal.open(folder, {"a": {"seed": 2}}) as journal:
        assert journal.finished("a").logits[:, 0].tolist() == [2]
    with pytest.raises(JournalError, match="seed was 2, is 1"):
        Journal.open(folder, {"a": {"seed": 1}})
    with Journal.open(folder, {"a": {"seed": 1}}, rescore=True) as journal:
        assert journal.finished("a").logits[:, 0].tolist() == [1, 1]
    assert json.loads((folder / "manifest.json").read_text())["scorers"] == {"a": {"seed": 1}}


def test_scorers_may_come_and_go(folder):
    with Journal.open(folder, {"a": {"seed": 1}}) as journal:
        put(journal, rows_of(0)[:1], [1], scorer="a")
    with Journal.open(folder, {"b": {"seed": 1}}) as journal:
        put(journal, rows_of(0)[:1], [2], scorer="b")
    assert json.loads((folder / "manifest.json").read_text())["scorers"] == {"a": {"seed": 1}, "b": {"seed": 1}}
    with Journal.open(folder, {"a": {"seed": 1}, "b": {"seed": 1}, "c": {}}) as journal:
        assert [len(journal.finished(name)) for name in "abc"] == [1, 1, 0]
    with pytest.raises(JournalError, match="'b': seed was 1, is 2"):
        Journal.open(folder, {"b": {"seed": 2}})


def test_the_order_of_keys_and_tuples_for_lists_make_no_difference(folder):
    Journal.open(folder, {"a": {"x": 1, "y": ("b", "c")}}).close()
    Journal.open(folder, {"a": {"y": ["b", "c"], "x": 1}}).close()


def test_a_fingerprint_that_is_no_json_is_refused_before_anything_is_made(folder):
    with pytest.raises(ContractError, match=r"scorer 'a': fingerprint\(\) must hold JSON values only"):
        Journal.open(folder, {"a": {"path": Path("x")}})
    assert not folder.exists()
