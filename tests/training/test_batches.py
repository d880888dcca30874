import numpy as np
import pytest

from lmsys_ensemble.training.batches import Steps, divide, plan_epoch
from lmsys_ensemble.training.settings import BatchSettings


@pytest.mark.parametrize("packed", [False, True])
def test_batches_keep_to_both_budgets(packed):
    generator = np.random.default_rng(0)
    lengths = generator.integers(10, 300, 200)
    rows = generator.permutation(200)[:50]
    settings = BatchSettings(tokens=700, rows=6)
    parts = divide(rows, lengths, settings, packed)
    assert sorted(np.concatenate(parts)) == sorted(rows)
    assert max(map(len, parts)) <= 6
    cost = (lambda part: lengths[part].sum()) if packed else (lambda part: len(part) * lengths[part].max())
    assert max(map(cost, parts)) <= 700


@pytest.mark.parametrize("by_length", [False, True])
def test_an_epoch_has_every_row_once_and_the_same_number_of_steps_as_every_other(by_length):
    lengths = np.random.default_rng(0).integers(10, 300, 500)
    steps = Steps(lengths, 16, 7, by_length)
    for epoch in range(3):
        steps.set_epoch(epoch)
        rows = list(steps)
        assert sorted(np.concatenate(rows)) == list(range(500))
        assert len(rows) == len(steps)
        assert max(map(len, rows)) <= 16
    again = Steps(lengths, 16, 7, by_length)
    again.set_epoch(2)
    assert list(again) == rows, "the order depends on seed and epoch only"
    again.set_epoch(1)
    assert list(again) != rows


def test_rows_of_similar_length_come_together():
    lengths = np.random.default_rng(0).integers(10, 300, 500)

    def padding(by_length):
        steps = plan_epoch(lengths, 16, np.random.default_rng(0), by_length)
        return sum(len(rows) * lengths[rows].max() for rows in steps) / lengths.sum()

    assert padding(True) < 1.1
    assert padding(False) > 1.5
