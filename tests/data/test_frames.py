import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pandas.testing import assert_frame_equal

from lmsys_ensemble import Blender, Ensemble, FakeScorer, parse_battles, parse_labels
from lmsys_ensemble.data.frames import as_frame
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import THREE_WAY


class Stream:
    """A table of a library that speaks the Arrow stream protocol and nothing else."""

    def __init__(self, frame):
        self.table = pa.Table.from_pandas(frame, preserve_index=False)

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


class OnlyToPandas:
    """A table of a library that can only turn itself into pandas."""

    def __init__(self, frame):
        self.frame = frame

    def to_pandas(self):
        return self.frame


class Lazy:
    def collect(self):
        raise AssertionError("nobody asked for it")


def as_polars(frame):
    polars = pytest.importorskip("polars", reason="polars is not installed; an object of its protocol stands for it")
    return polars.DataFrame(frame.to_dict(orient="list"))


KINDS = {
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "batches": lambda frame: pa.Table.from_pandas(frame, preserve_index=False).to_reader(max_chunksize=2),
    "stream": Stream,
    "to_pandas": OnlyToPandas,
    "polars": as_polars,
    "rows": lambda frame: frame.to_dict(orient="records"),
    "tuple of rows": lambda frame: tuple(frame.to_dict(orient="records")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_gives_the_same_predictions_labels_and_figures(labelled_table, kind):
    made = KINDS[kind]
    ensemble = Ensemble([FakeScorer()])
    assert_frame_equal(ensemble.predict(made(labelled_table)), ensemble.predict(labelled_table))
    assert np.array_equal(ensemble.predict_proba(made(labelled_table)), ensemble.predict_proba(labelled_table))
    assert list(ensemble.member_probabilities(made(labelled_table))) == ["fake"]
    assert np.array_equal(parse_labels(made(labelled_table)), parse_labels(labelled_table))
    assert parse_battles(made(labelled_table)).prompts == parse_battles(labelled_table).prompts


@pytest.mark.parametrize("kind", ["arrow", "stream", "rows"])
def test_fitting_and_measuring_take_every_kind_of_table(labelled_table, kind):
    grouped = labelled_table.assign(group=[1, 1, 2, 3, 3], source=list("xxyyy"))
    ensemble = Ensemble([FakeScorer()])
    expected = ensemble.evaluate(grouped, by="source")
    assert_frame_equal(ensemble.evaluate(KINDS[kind](grouped), by="source"), expected)
    learner = Ensemble([FakeScorer()], Blender("linear"))
    assert learner.fit(KINDS[kind](grouped)).blender.member_names_ is not None


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
def test_a_path_is_read(labelled_table, tmp_path, suffix, as_path):
    path = tmp_path / f"battles{suffix}"
    labelled_table.to_csv(path, index=False) if suffix == ".csv" else labelled_table.to_parquet(path)
    ensemble = Ensemble([FakeScorer()])
    assert_frame_equal(ensemble.predict(as_path(path)), ensemble.predict(labelled_table))
    assert_frame_equal(ensemble.evaluate(as_path(path)), ensemble.evaluate(labelled_table))
    with pytest.raises(InputError, match="there is no file"):
        ensemble.predict(as_path(tmp_path / "lost.csv"))


def test_lists_of_turns_and_large_ids_survive_arrow(make_battles):
    frame = pd.DataFrame({"id": [2**53 + 1, 5], "prompt": [["a", None], ["b"]]})
    frame = frame.assign(response_a=[["x", "y"], ["z"]], response_b=[["u", "v"], ["w"]])
    battles = parse_battles(Stream(frame))
    assert battles.ids.tolist() == [2**53 + 1, 5]
    assert battles.prompts == [("a", ""), ("b",)]
    assert battles.responses_b == [("u", "v"), ("w",)]


def test_lists_of_views_as_polars_has_them_are_read():
    views = pa.list_(pa.string_view())
    turns = pa.array([["a", None], ["b"]], type=views)
    table = pa.table({"id": [1, 2], "prompt": turns, "response_a": turns, "response_b": turns})
    assert parse_battles(table).prompts == [("a", ""), ("b",)]


def test_a_missing_id_in_an_arrow_table_is_named_and_makes_no_floats_of_the_others():
    ids = pa.array([2**53 + 1, None], type=pa.int64())
    table = pa.table({"id": ids, **{name: ["x", "y"] for name in ("prompt", "response_a", "response_b")}})
    with pytest.raises(InputError, match=r"1 are not: position 1: None"):
        parse_battles(table)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (np.zeros((2, 4)), r"a NumPy array of shape \(2, 4\), which has no column names; make a DataFrame of it"),
        ({"id": 1, "prompt": "x"}, r"a dict, which may be one row or a dict of columns; pass \[row\]"),
        (None, "cannot read battles from None; expected a pandas, polars or Arrow table"),
        (7, "a value of type int; expected"),
        (pd.Series([1, 2], name="id"), r"got a Series \('id'\), which is one column or one row"),
        (pd.DataFrame, "the class DataFrame"),
        (Lazy(), r"a Lazy, which holds a query and no rows yet; pass the result of its collect\(\)"),
        (OnlyToPandas([1]), r"to_pandas\(\) of a value of type OnlyToPandas gave a value of type list"),
        (["a", "b"], "a list of rows must hold dicts; row 0 is a value of type str"),
        ([{"id": 1, "prompt": "x"}, {"id": 2}], "row 1 and row 0 differ in 'prompt'"),
        ([], "columns are missing: 'id'"),
    ],
    ids=["numpy", "dict", "none", "number", "series", "class", "lazy", "odd", "strings", "ragged", "empty"],
)
@pytest.mark.parametrize("work", ["predict", "predict_proba", "member_probabilities", "fit", "evaluate"])
def test_what_is_no_table_is_refused_with_a_sentence(table, words, work):
    with pytest.raises(InputError, match=words):
        getattr(Ensemble([FakeScorer()]), work)(table)


@pytest.mark.parametrize("work", ["fit", "evaluate"])
def test_battles_without_labels_cannot_be_learnt_from(battles_table, work):
    with pytest.raises(InputError, match="Battles hold no labels; pass the table that they were made of"):
        getattr(Ensemble([FakeScorer()]), work)(parse_battles(battles_table))


def test_an_arrow_array_that_is_no_table_is_refused():
    with pytest.raises(InputError, match="cannot be read as an Arrow table"):
        as_frame(pa.chunked_array([[1, 2]]))


def test_a_frame_is_not_copied(battles_table):
    assert as_frame(battles_table) is battles_table


def test_labels_of_other_kinds_name_their_faults(labelled_table):
    with pytest.raises(InputError, match="no labels found"):
        parse_labels(KINDS["arrow"](labelled_table.drop(columns=list(THREE_WAY.columns))))
