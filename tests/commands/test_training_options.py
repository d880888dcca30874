"""What commands that make models are asked for."""

import pytest

from lmsys_ensemble.commands import training_options
from lmsys_ensemble.commands.options import CommandOptions
from lmsys_ensemble.commands.table import COMMANDS
from tests.commands.test_options import LEAST, read


def test_every_one_belongs_to_a_command():
    kinds = {kind for kind in vars(training_options).values() if isinstance(kind, type)}
    kinds = {kind for kind in kinds if issubclass(kind, CommandOptions)} - {CommandOptions}
    assert len(kinds) > 5
    assert kinds <= {command.options for command in COMMANDS.values()}


def test_training_by_default_replaces_nothing_and_begins_anew_without_folds():
    options = read("train", *LEAST["train"])
    assert (options.overwrite, options.resume, options.folds, options.fold) == (False, False, None, None)
    assert (options.output, options.check) == (None, False)
    assert (options.data, options.cache, options.device) == (None, None, "auto")


def test_files_may_be_several():
    merge = read("merge", *LEAST["merge"], "--input", "a.csv", "b.csv", "--calibration", "c.csv")
    assert (merge.input, merge.calibration) == (("a.csv", "b.csv"), ("c.csv",))
    adapters = read("merge-adapters", "one", "two", "three", "--output", "out", "--weights", "1", "0.5", "2")
    assert (adapters.adapters, adapters.weights) == (("one", "two", "three"), (1.0, 0.5, 2.0))


def test_a_quantization_that_there_is_not_is_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        read("merge", *LEAST["merge"], "--quantization", "w4a4")
    assert "choose from none, int8, w4a16" in capsys.readouterr().err
