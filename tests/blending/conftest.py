"""Simulated scorers, of which the truth is known, and the real ones where they are at hand."""

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.probabilities import check_probabilities, softmax


def draw_labels(probabilities, seed):
    """Draw a class position per row."""
    uniform = np.random.default_rng(seed).random((len(probabilities), 1))
    return (uniform > probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)


def simulate(n_rows, n_scorers=2, noise=1.0, seed=0, n_classes=3):
    """Return noisy views of one truth, with labels drawn from the truth."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=(n_rows, n_classes)) * 1.5
    members = [softmax(truth + noise * generator.normal(size=truth.shape)) for _ in range(n_scorers)]
    return members, draw_labels(softmax(truth), seed + 1)


@pytest.fixture(scope="session")
def competition_rows(data_folder):
    """Two classifiers' probabilities on rows of the competition, with labels."""
    path = data_folder / "lmsys_two_models_oof.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    table = pd.read_csv(path)
    members = [check_probabilities(table.filter(like=prefix)) for prefix in ("m1_", "m2_")]
    return members, table["label"].to_numpy()


def named(members):
    return {name: member for name, member in zip("pqrs", members, strict=False)}
