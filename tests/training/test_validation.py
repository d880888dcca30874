import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.training.validation import length_baseline, length_features, validate


def make_labelled(n_rows, seed, sources=("x", "y"), slope=2.0):
    """Return battles of which, in source x only, the longer response tends to win."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 400, (n_rows, 2))
    names = np.array(sources, dtype=object)[np.arange(n_rows) % len(sources)]
    gap = np.log1p(lengths[:, 0]) - np.log1p(lengths[:, 1])
    scores = np.stack([slope * gap * (names == "x"), np.zeros(n_rows), np.full(n_rows, -0.5)], axis=1)
    truth = softmax(scores)
    labels = np.eye(3)[[generator.choice(3, p=row) for row in truth]]
    battles = Battles(
        pd.RangeIndex(n_rows),
        [("?",)] * n_rows,
        [("a" * (a // 2), "b" * (a - a // 2)) for a, _ in lengths],
        [("c" * b,) for _, b in lengths],
    )
    return Labelled(battles, labels, names, np.array([f"g{row // 2}" for row in range(n_rows)], dtype=object)), truth


def log_loss(labels, probabilities):
    return -np.mean(np.log((labels * probabilities).sum(axis=1)))


def test_length_features_count_characters_of_all_turns():
    data, _ = make_labelled(5, 0)
    for row, battle in zip(length_features(data.battles), data.battles, strict=True):
        a, b = (np.log1p(len("".join(turns))) for turns in (battle.response_a, battle.response_b))
        np.testing.assert_allclose(row, [a - b, abs(a - b), (a + b) / 2])


def test_figures_are_those_of_the_predictions_and_of_baselines_fitted_to_the_same_source():
    (learn, _), (held, truth) = make_labelled(2000, 1), make_labelled(400, 2)
    figures = validate(learn, held, truth)
    assert list(figures) == ["x", "y", "all"]
    prior = np.empty_like(truth)
    for source in ("x", "y"):
        prior[held.sources == source] = learn.labels[learn.sources == source].mean(axis=0)
    for part, rows in (("x", held.sources == "x"), ("y", held.sources == "y"), ("all", np.ones(400, dtype=bool))):
        found = figures[part]
        assert found["rows"] == rows.sum()
        assert found["log_loss"] == pytest.approx(log_loss(held.labels[rows], truth[rows]), abs=1e-4)
        assert found["class_prior"] == pytest.approx(log_loss(held.labels[rows], prior[rows]), abs=1e-4)
        right = truth[rows].argmax(axis=1) == held.labels[rows].argmax(axis=1)
        assert found["accuracy"] == pytest.approx(right.mean(), abs=1e-4)
        low, high = found["log_loss_interval"]
        assert low < found["log_loss"] < high
        down, up = found["difference_interval"]
        assert down <= found["difference_to_length_only"] <= up
        assert found["difference_to_length_only"] == pytest.approx(found["log_loss"] - found["length_only"], abs=2e-4)
    # Lengths say everything in x and nothing in y.
    assert figures["x"]["length_only"] < figures["x"]["class_prior"] - 0.1
    assert figures["x"]["length_only"] == pytest.approx(figures["x"]["log_loss"], abs=0.03)
    assert figures["y"]["length_only"] == pytest.approx(figures["y"]["class_prior"], abs=0.03)


def test_a_source_that_was_not_learned_from_is_measured_against_all_that_was():
    learn, _ = make_labelled(600, 3, sources=("x",))
    held, truth = make_labelled(100, 4, sources=("z",))
    expected = log_loss(held.labels, np.tile(learn.labels.mean(axis=0), (100, 1)))
    assert validate(learn, held, truth)["z"]["class_prior"] == pytest.approx(expected, abs=1e-4)


def test_a_class_that_was_never_seen_keeps_its_column():
    data, _ = make_labelled(200, 5, sources=("x",))
    seen = data.take(np.flatnonzero(data.labels[:, 2] == 0))
    predicted = length_baseline(seen, data)
    assert predicted.shape == (200, 3)
    assert not predicted[:, 2].any()
    np.testing.assert_allclose(predicted.sum(axis=1), 1)


def test_soft_labels_weigh_as_much_as_hard_ones():
    data, truth = make_labelled(3000, 6, sources=("x",))
    soft = Labelled(data.battles, truth, data.sources, data.groups)
    np.testing.assert_allclose(length_baseline(soft, data), truth, atol=0.05)
