import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.blending.checks import (
    as_fixed,
    check_members,
    check_sample_weight,
    check_temperatures,
    check_weights,
)
from lmsys_ensemble.errors import ConfigError, InputError


@pytest.mark.parametrize(
    "weights", [[np.nan, 1], [np.inf, 1], [1e308, 1e308], [-0.1, 1.1], [0, 0], [], [[1, 2]], ["a"], None]
)
def test_bad_weights_are_refused(weights):
    with pytest.raises(ConfigError):
        check_weights(weights)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf, [1.0, 0.0], "warm"])
def test_bad_temperatures_are_refused(temperature):
    with pytest.raises(ConfigError):
        check_temperatures(temperature)


def test_good_values_become_float64_vectors():
    assert check_weights([3, 0]).tolist() == [3.0, 0.0]
    assert check_temperatures(2).tolist() == [2.0]


def test_rows_are_renormalised():
    (member,) = check_members([[[0.5994, 0.2, 0.2]]])
    assert member.sum() == pytest.approx(1, abs=1e-15)
    assert member[0, 0] / member[0, 1] == pytest.approx(0.5994 / 0.2)


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [
        ([], "empty"),
        ([np.full((2, 3), 1 / 3), np.full((3, 3), 1 / 3)], "same rows"),
        ([np.full((2, 3), 1 / 3), np.full((2, 2), 1 / 2)], "same rows"),
        ([[[0.5, np.nan, 0.5]]], "not finite"),
        ([[[1.5, -0.5, 0.0]]], "negative"),
        ([[[2.0, 1.0, 0.5]]], "softmax"),
    ],
)
def test_what_holds_no_aligned_probabilities_is_refused(probabilities, words):
    with pytest.raises(InputError, match=words):
        check_members(probabilities)


def test_the_scorer_at_fault_is_named():
    with pytest.raises(InputError, match=r"probabilities\[1\]"):
        check_members([[[0.5, 0.5]], [[np.nan, 0.5]]])
    with pytest.raises(InputError, match=r"probabilities\['llama'\]"):
        check_members([[[0.5, 0.5]], [[np.nan, 0.5]]], ["gemma", "llama"])


def test_tables_in_another_order_are_refused():
    table = pd.DataFrame([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], index=["x", "y"], columns=list("abt"))
    assert len(check_members([table, table.copy()])) == 2
    for other in (table.loc[["y", "x"]], table[["b", "a", "t"]]):
        with pytest.raises(InputError, match="differ in index or columns"):
            check_members([table, other])


def test_sample_weights():
    assert check_sample_weight(None, 3).tolist() == [1, 1, 1]
    assert check_sample_weight([0, 2], 2).tolist() == [0, 2]
    for wrong in ([1.0], [-1, 2], [np.nan, 1], [0, 0]):
        with pytest.raises(InputError):
            check_sample_weight(wrong, 2)


def test_a_long_list_is_not_printed_whole():
    with pytest.raises(InputError) as caught:
        check_sample_weight(np.full(100_000, -1.0), 100_000)
    assert len(str(caught.value)) < 200


def test_fixed_values_become_plain_numbers():
    assert as_fixed(None) is None
    assert as_fixed(np.float32(2)) == 2.0
    assert as_fixed(np.array([1, 2])) == (1.0, 2.0)
    for wrong in ("a", [[1.0]], []):
        with pytest.raises(ConfigError):
            as_fixed(wrong)
