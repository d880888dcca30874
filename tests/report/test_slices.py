import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.report.inputs import check_inputs
from lmsys_ensemble.report.slices import MAX_NAMES, slice_battles, slice_lengths, slice_names, slice_turns
from lmsys_ensemble.schema import THREE_WAY


def battles(lengths, turns=None):
    turns = turns or [1] * len(lengths)
    prompts = [("x" * length, *[""] * (count - 1)) for length, count in zip(lengths, turns, strict=True)]
    empty = [("",) * count for count in turns]
    return Battles(pd.RangeIndex(len(lengths)), prompts, empty, empty)


def test_lengths_are_divided_into_about_as_many_rows_with_names_that_are_true():
    lengths = np.random.default_rng(0).lognormal(7, 1, 1000).astype(int).tolist()
    sliced = slice_lengths(battles(lengths))
    assert len(sliced.names) == 5
    assert np.bincount(sliced.codes).min() > 120
    for length, code in zip(lengths, sliced.codes, strict=True):
        low, _, high = sliced.names[code].replace(",", "").partition(" ")
        top = float("inf") if high == "or more" else int(high.removeprefix("to "))
        assert int(low) <= length <= top


@pytest.mark.parametrize("lengths", [[0, 0, 0], [5], [7, 7, 7, 9]])
def test_lengths_that_are_all_alike_still_work(lengths):
    sliced = slice_lengths(battles(lengths))
    assert sorted(set(sliced.codes)) == list(range(len(sliced.names)))


def test_turns_are_counted_and_many_are_one_part():
    sliced = slice_turns(battles([1] * 5, [1, 3, 9, 4, 1]))
    assert sliced.names == ["1 turn", "3 turns", "4 or more"]
    assert sliced.codes.tolist() == [0, 1, 2, 2, 0]


def test_sources_come_by_size_and_the_rest_is_one_part():
    sources = pd.Series(["b", "a", "b", None, "", "c"])
    sliced = slice_names("Source", sources)
    assert sliced.names == ["b", "missing", "a", "c"]
    assert sliced.codes.tolist() == [0, 2, 0, 1, 1, 3]
    many = slice_names("Source", pd.Series([f"s{row:03}" for row in range(100)]))
    assert len(many.names) == MAX_NAMES + 1
    assert many.names[-1] == "88 others"


def test_scripts_are_told_from_texts_and_languages_are_those_of_the_table():
    texts = ["Hello"] * 12 + ["Привет"] * 11 + ["Hola"] * 10 + ["Ciao"] * 7
    table = pd.DataFrame({"id": range(40), "prompt": texts, "response_a": "a", "response_b": "b"})
    members, labels = {"one": np.full((40, 3), 1 / 3)}, np.arange(40) % 3
    inputs = check_inputs(members, labels, task=THREE_WAY, battles=table.assign(language=table["prompt"]))
    sliced = {part.title: part for part in slice_battles(inputs)}
    assert sliced["Script"].names == ["latin", "cyrillic"]
    assert sliced["Script"].codes.tolist() == [0] * 12 + [1] * 11 + [0] * 17
    assert sliced["Language"].names == ["Hello", "Привет", "Hola", "1 others"]
    alike = table.assign(prompt="Hello", language="en")
    sliced = slice_battles(check_inputs(members, labels, task=THREE_WAY, battles=alike))
    assert {part.title for part in sliced} == {"Length in characters", "Number of turns"}
