"""The fitted model."""

import numpy as np
import pytest

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.lexical import model as module
from lmsys_ensemble.lexical.features import read_texts
from lmsys_ensemble.lexical.model import count_features, fit_model
from lmsys_ensemble.probabilities import softmax, swap_classes
from lmsys_ensemble.schema import TASKS
from tests.lexical.longer import fitted, make_table, odd_battles

KINDS = ["logistic", pytest.param("boosted", marks=pytest.mark.filterwarnings("error"))]


@pytest.mark.parametrize("task", ["three_way", "two_way"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_can_be_counted_and_swaps_exactly(kind, task):
    if kind == "boosted":
        pytest.importorskip("lightgbm", reason="boosted trees need an optional package")
    _, _, model = fitted(kind, task)
    held = make_table(60, seed=1, task=task)
    battles = parse_battles(held)
    probabilities = softmax(model.logits_in_chunks(battles))
    swapped = softmax(model.logits_in_chunks(battles.swapped()))
    np.testing.assert_array_equal(swap_classes(swapped, TASKS[task]), probabilities)
    names = np.array(TASKS[task].classes)[probabilities[:, :2].argmax(axis=1)]
    decided = (held["winner"] != "tie").to_numpy()
    assert (names == held["winner"])[decided].mean() > 0.9
    odd = parse_battles(odd_battles())
    assert np.isfinite(model.logits_in_chunks(odd)).all()
    np.testing.assert_array_equal(swap_classes(model.logits_in_chunks(odd.swapped()), TASKS[task]),
                                  model.logits_in_chunks(odd))  # fmt: skip


def test_importances_name_what_decides_and_for_whom_it_speaks():
    table = fitted()[2].importances()
    assert table["share"].sum() == pytest.approx(1)
    assert table["share"].is_monotonic_decreasing
    lines = table.set_index("feature").loc["log lines"]
    assert lines["speaks_for"] == "its response"
    assert lines["direction"] > 0.5
    assert "log lines" in set(table["feature"].head(5))
    assert table.set_index("feature").loc["component 1", "words"]


def test_features_that_were_counted_before_give_the_same_model():
    settings, rows, model = fitted()
    again = fit_model(rows.battles, rows.labels, rows.groups, settings, count_features(rows.battles))
    texts = read_texts(rows.battles)
    np.testing.assert_array_equal(again.logits(texts), model.logits(texts))


def test_auto_boosts_only_where_lightgbm_is_installed(monkeypatch):
    monkeypatch.setattr(module, "has_lightgbm", lambda: False)
    settings, rows, model = fitted()
    plain = fit_model(rows.battles, rows.labels, rows.groups, settings.model_copy(update={"model": "auto"}))
    assert plain.trees is None
    assert plain.chosen == model.chosen


def test_rows_of_a_single_prompt_are_fitted_with_the_largest_penalty():
    settings, rows, _ = fitted()
    few = rows.take(np.array([0, 1, 2]))
    model = fit_model(few.battles, few.labels, np.array(["one"] * 3, dtype=object), settings)
    assert model.chosen["penalty"] == max(module.PENALTIES)
