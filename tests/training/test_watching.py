from importlib.util import find_spec

import numpy as np
import pytest

from lmsys_ensemble.errors import MissingDependencyError
from lmsys_ensemble.training.fit import fit_lora
from lmsys_ensemble.training.run import check_run
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


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_event_files_hold_the_curves_and_no_arguments(checkpoints, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = make_settings(report_to=["tensorboard"], evaluation={"per_epoch": 1}, optimizer={"epochs": 1})
    held = make_examples(9, seed=1)
    fitted = fit_lora(
        build(checkpoints, settings), recipe_of(settings), settings, make_examples(24), held=held,
        folder=tmp_path / "checkpoints", curves=tmp_path / "curves.csv",
    )  # fmt: skip
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert not any("text_summary" in tag for tag in tags["tensors"])
    for tag, column in (("train/loss", "loss"), ("eval/log_loss", "held_log_loss")):
        expected = [(row["step"], row[column]) for row in fitted.curve if column in row]
        assert [(event.step, pytest.approx(event.value, rel=1e-5)) for event in events.Scalars(tag)] == expected


@pytest.mark.skipif(any(map(find_spec, ("tensorboard", "tensorboardX"))), reason="tensorboard is installed")
def test_a_run_that_cannot_report_to_tensorboard_names_the_package_before_anything_is_loaded(checkpoints):
    settings = make_settings(report_to=["tensorboard"], base_model=str(checkpoints.base("llama")))
    with pytest.raises(MissingDependencyError, match="needs the package tensorboard: pip install tensorboard"):
        check_run(settings, "cpu")
