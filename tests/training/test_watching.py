import numpy as np
import pytest

from lmsys_ensemble.training.fit import fit_lora
from lmsys_ensemble.training.watching import as_csv, losses_by_epoch
from tests.training.fitting import build, make_examples, make_settings, recipe_of


def test_the_curve_is_a_table(checkpoints):
    settings = make_settings(evaluation={"per_epoch": 1}, optimizer={"epochs": 2})
    held = make_examples(9, seed=1)
    fitted = fit_lora(build(checkpoints, settings), recipe_of(settings), settings, make_examples(24), held=held)
    lines = as_csv(fitted.curve).splitlines()
    assert lines[0] == "step,epoch,loss,held_log_loss,held_accuracy,learning_rate,gradient_norm"
    assert [line.split(",")[0] for line in lines[1:]] == [str(step) for step in range(1, 7)]
    cells = [line.split(",") for line in lines[1:]]
    assert all(cell[2] for cell in cells)
    assert [bool(cell[3]) for cell in cells] == [False, False, True] * 2
    assert float(np.mean([float(cell[2]) for cell in cells[:3]])) == pytest.approx(fitted.losses[0], abs=1e-4)


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps_however_often_it_is_logged():
    history = [
        {"step": 2, "loss": 1.0}, {"step": 3, "loss": 4.0}, {"step": 3, "eval_log_loss": 9.0}, {"step": 6, "loss": 0.5},
    ]  # fmt: skip
    assert losses_by_epoch(history, 3) == [2.0, 0.5]
