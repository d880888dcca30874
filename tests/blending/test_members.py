import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.blending.members import arrange_members, check_names, order_of, split_members
from lmsys_ensemble.errors import ConfigError, InputError

ONE = np.full((5, 3), 1 / 3)


def test_a_mapping_has_names_and_a_list_has_positions():
    names, members = split_members({"gemma": ONE, "llama": None})
    assert names == ("gemma", "llama")
    assert members[0] is ONE
    assert members[1] is None
    for several in ([ONE, ONE], (ONE, ONE), {"a": ONE, "b": ONE}.values()):
        assert split_members(several)[0] is None
        assert len(split_members(several)[1]) == 2


def test_an_array_has_rows_first():
    array = np.random.default_rng(0).dirichlet([1, 1, 1], (5, 2))
    names, members = split_members(array)
    assert names is None
    assert np.array_equal(np.stack(members, axis=1), array)


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [
        (ONE, "wrap a single one"),
        (ONE.tolist(), "wrap a single one"),
        (pd.DataFrame(ONE), "wrap a single one"),
        ("abc", "list of arrays"),
        (7, "list of arrays"),
        (np.zeros((5, 2, 3, 1)), "shape \\(n_rows, n_members, n_classes\\)"),
        ({1: ONE}, "name must be text"),
        ({" ": ONE}, "name must be text"),
    ],
)
def test_what_is_none_of_the_three_is_refused(probabilities, words):
    with pytest.raises(InputError, match=words):
        split_members(probabilities)


@pytest.mark.parametrize("sizes", [{"n_rows": 5}, {"n_members": 2}, {"n_members": 2, "n_rows": 5}, {}])
def test_an_array_with_members_first_is_refused_with_the_cure(sizes):
    with pytest.raises(InputError, match=r"looks as if members came first.*numpy.stack\(arrays, axis=1\)"):
        split_members(np.stack([ONE, ONE]), **sizes)
    assert len(split_members(np.stack([ONE, ONE], axis=1), **sizes)[1]) == 2


def test_an_array_of_one_row_needs_to_know_how_many_members_there_are():
    assert len(split_members(np.full((1, 2, 3), 1 / 3), n_members=2)[1]) == 2
    assert len(split_members(np.empty((0, 2, 3)))[1]) == 2


def test_names_must_differ():
    with pytest.raises(InputError, match="'a' occurs more than once"):
        check_names(["a", "b", "a"])
    with pytest.raises(ConfigError):
        check_names(["a", ""], ConfigError)


def test_names_give_the_order():
    assert order_of(["a", "b", "c"], ["c", "a", "b"]) == [2, 0, 1]
    with pytest.raises(ConfigError, match=r"'b', 'c' are missing, 'x' is unknown to it\. Give members the names"):
        order_of(["a", "b", "c"], ["x", "a"])


def test_members_come_in_the_order_of_the_weights():
    names, members = arrange_members({"b": 2 * ONE, "a": ONE}, ("a", "b"), 2)
    assert names == ("a", "b")
    assert members[0] is ONE
    assert arrange_members({"b": ONE}, ("a", "b"), 2)[1][0] is None
    assert arrange_members({"b": ONE}, None, None)[0] == ("b",)
    for known, n_members in ((("a", "b"), 2), (None, 1)):
        with pytest.raises(InputError):
            arrange_members({"c": ONE}, known, n_members)
