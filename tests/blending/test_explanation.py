import warnings

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble import Blender
from lmsys_ensemble.blending.explanation import (
    describe_difference,
    describe_method,
    describe_weights,
    explain_choice,
    explain_folds,
    find_unused,
    fit_with_findings,
)
from lmsys_ensemble.blending.selection import CANDIDATES
from lmsys_ensemble.blending.spec import METHODS
from lmsys_ensemble.evaluation.intervals import Difference
from tests.predicted import predictions


def test_every_method_has_a_name_of_its_own_in_words():
    names = [describe_method(method, calibration) for method, calibration in CANDIDATES]
    assert len(set(names)) == len(names)
    assert describe_method("log", "bias") == "logarithmic pool with class biases"
    assert all(describe_method(method, "none") for method in METHODS if method != "auto")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.003, -0.001, "0.0020 lower (95 % interval: 0.0010 to 0.0030 lower), which is more than chance"),
        (-0.005, 0.001, "0.0020 lower (95 % interval: -0.0050 to +0.0010), which chance alone could do"),
    ],
)
def test_a_difference_is_said_with_its_doubt(low, high, words):
    assert describe_difference(Difference(-0.002, 0.001, low, high)) == words


def test_a_loss_that_is_higher_is_called_so():
    assert describe_difference(Difference(0.002, 0.001, 0.001, 0.003)).startswith("0.0020 higher (95 % interval: 0.00")


def selected(records):
    blender = Blender("auto")
    blender.selection_ = pd.DataFrame(
        records, columns=["method", "log_loss", "difference", "low", "high", "gap", "gap_error", "selected"]
    ).assign(calibration="none")
    return blender


EQUAL, POOL, STACK = "equal", "log", "stack"


@pytest.mark.parametrize(
    ("records", "n_groups", "words"),
    [
        ([(EQUAL, 0.9, 0, 0, 0, 0, 0, True), (POOL, 0.91, 0.01, 0, 0.02, 0.01, 0.1, False)], 500, "None of the 2"),
        (
            [(EQUAL, 0.9, 0, 0, 0, 0.1, 0.1, True), (POOL, 0.8, -0.1, -0.2, 0.1, 0, 0, False)],
            500,
            "0.1000 lower (95 % interval: -0.2000 to +0.1000), which chance alone could do: the equal average is kept",
        ),
        ([(EQUAL, 0.9, 0, 0, 0, 0.1, 0.1, True), (POOL, 0.8, -0.1, -0.2, 0.1, 0, 0, False)], 60, "With 60 groups"),
        ([(EQUAL, 0.9, 0, 0, 0, 0.1, 0.0, False), (POOL, 0.8, -0.1, -0.2, -0.1, 0, 0, True)], 500, "It is the lowest"),
        (
            [
                (EQUAL, 0.9, 0, 0, 0, 0.11, 0.0, False),
                (POOL, 0.8, -0.1, -0.2, -0.1, 0.01, 0.02, True),
                (STACK, 0.79, -0.11, -0.2, -0.1, 0, 0, False),
            ],
            500,
            "the regression on log probabilities, is only 0.0100 lower, within one standard error (0.0200)",
        ),
        (
            [
                (EQUAL, 0.9, 0, 0, 0, 0.11, 0.0, False),
                (POOL, 0.8, -0.1, -0.2, -0.1, 0.01, 0.005, True),
                (STACK, 0.79, -0.11, -0.2, -0.1, 0, 0, False),
            ],
            500,
            "0.0100 lower. But to choose by such figures is not certain to gain",
        ),
    ],
)
def test_the_choice_is_explained(records, n_groups, words):
    assert words in explain_choice(selected(records), n_groups)


def test_what_was_asked_for_is_said_to_be_asked_for():
    members, labels = predictions(300)
    blender = Blender("log").fit(list(members.values()), labels)
    assert "was asked for" in explain_choice(blender, 300)
    assert describe_weights(blender).startswith("Weights are exponents")
    assert describe_weights(Blender()).startswith("Weights are shares")
    assert explain_folds([blender] * 3) == "logarithmic pool (3 of 3)"


def test_findings_carry_the_names_of_the_members_and_nothing_is_left_as_a_warning():
    members, labels = predictions(1000, noises=(1.0, 1.0, 1.0))
    arrays = list(members.values())
    arrays[1] = np.random.default_rng(5).permutation(arrays[1])
    blender = Blender("linear")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        findings = fit_with_findings(blender, arrays, np.eye(3)[labels], None, ["gemma", "llama", "qwen"])
    assert len(findings) == 1
    assert findings[0].startswith("llama (log loss")
    assert "shuffling its rows would not hurt it" in findings[0]


def test_members_that_a_blend_does_not_use_are_named():
    members, labels = predictions(300, noises=(0.5, 0.5, 0.5))
    blender = Blender(weights=[1, 0.001, 1]).fit(list(members.values()), labels)
    assert find_unused(blender, ["gemma", "llama", "qwen"]) == [
        "llama has (almost) no weight: the blend does as well without it"
    ]
    assert find_unused(Blender(), ["gemma"]) == []
