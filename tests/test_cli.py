"""The command line as people use it."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from lmsys_ensemble.cli import main
from lmsys_ensemble.schema import THREE_WAY
from tests.commandline import run, write_config


@pytest.fixture
def faults(monkeypatch):
    """Let configurations name the scorer that fails on purpose."""
    monkeypatch.setenv("LMSYS_ENSEMBLE_FAULTS", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "--config", "ensemble.yaml", "--input", "tset.csv", "--output", "p.csv"), "no file tset.csv"),
        (("predict", "--config", "ensembel.yaml", "--input", "test.csv", "--output", "p.csv"), "no configuration"),
        (
            ("predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.txt"),
            "or .parquet, got 'p.txt'",
        ),
        (("predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "no/p.csv"), "does not exist"),
        (("submit", "--config", "ensemble.yaml", "--test", "labelled.parquet"), "no file labelled.parquet"),
        (("evaluate", "--config", "ensemble.yaml", "--input", "test.csv"), "no labels found"),
        (("evaluate", "--config", "ensemble.yaml", "--input", "labelled.csv", "--by", "sauce"), "no column 'sauce'"),
        (("models", "pull", "smollm"), "no bundled model"),
        (("train", "recipe.yaml", "--output", "out"), "no file recipe.yaml"),
    ],
)
def test_a_mistake_is_one_readable_error_and_exit_code_2(folder, capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ({"type": "fake", "sede": 1}, "no setting 'sede' (did you mean 'seed'?)"),
        ({"type": "gema"}, "no scorer type 'gema' (did you mean 'gemma'?)"),
        ({"type": "gemma"}, "needs the setting 'model'"),
        ({"seed": 1}, "a scorer needs a type"),
    ],
)
def test_misspelt_configurations_get_a_suggestion(folder, capsys, scorer, message):
    write_config([scorer])
    code, _, err = run(capsys, "predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv")
    assert code == 2
    assert message in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("runs", "show", "absent"), "absent is no run directory"),
        (("predict", "--run-dir", "test.csv"), "test.csv is a file, expected the directory of a run"),
        (("predict", "--run-dir", "full"), "full is not empty and no run directory"),
        (("predict", "--run-dir", "run", "--config", "other.yaml"), "run holds results of other settings"),
        (("predict", "--config", "pinned.yaml"), "device 'cuda:77' is not on this machine"),
        (("import-checkpoint", "no.pth", "--base", "b", "--template", "turns", "--max-tokens", 8, "--output", "o"),
         "there is no checkpoint no.pth"),
    ],
)  # fmt: skip
def test_a_wrong_folder_device_or_setting_is_exit_code_2_and_says_nothing_of_finished_work(
    folder, capsys, arguments, message
):
    write_config([{"type": "fake", "seed": 7, "name": "one"}], {"method": "equal"})
    (folder / "ensemble.yaml").rename("other.yaml")
    write_config([{"type": "llama", "model": "m", "device": "cuda:77"}], {"method": "equal"})
    (folder / "ensemble.yaml").rename("pinned.yaml")
    write_config([{"type": "fake", "seed": 1, "name": "one"}], {"method": "equal"})
    (folder / "full").mkdir()
    (folder / "full" / "note.txt").touch()
    common = ("--input", "test.csv", "--output", "p.csv")
    run(capsys, "predict", "--config", "ensemble.yaml", *common, "--run-dir", "run")
    (folder / "p.csv").unlink()
    if arguments[0] == "predict":
        arguments = (arguments[0], "--config", "ensemble.yaml", *common, *arguments[1:])
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "to keep finished work" not in err
    assert not (folder / "p.csv").exists()


def test_finished_work_is_spoken_of_only_where_something_ran(folder, capsys, faults):
    faulty = {"type": "faulty", "name": "one"}
    for setting, said in (({"fail_load": True}, False), ({"raise_at": 3}, True)):
        write_config([{**faulty, **setting}], {"method": "equal"})
        code, _, err = run(capsys, "predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv")
        assert code == 1
        assert ("to keep finished work" in " ".join(err.split())) == said


@pytest.mark.parametrize("command", ["predict", "validate"])
def test_a_file_cannot_kill_the_process_unasked(folder, capsys, command):
    write_config([{"type": "faulty", "die_at": 0}], {"method": "equal"})
    output = ["--output", "p.csv"] if command == "predict" else []
    code, _, err = run(capsys, command, "--config", "ensemble.yaml", "--input", "test.csv", *output)
    assert code == 2
    assert "can kill the process" in err
    assert "LMSYS_ENSEMBLE_FAULTS=1" in err


@pytest.mark.parametrize(
    ("scorer", "arguments", "message"),
    [
        ({"seed": 3}, ("--run-dir", "run"), "or pass --rescore to score anew with these"),
        ({"type": "saved", "path": "saved.csv"}, ("--swap", "all"), "--swap needs scorers that read the texts"),
        ({}, ("--time-budget", "0"), "--time-budget must be a positive number of seconds, got 0.0"),
        ({}, ("--rescore",), "--rescore concerns what a run directory holds; pass --run-dir, too"),
    ],
)
def test_errors_name_flags_and_no_keywords(folder, capsys, scorer, arguments, message):
    common = ("predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv")
    assert run(capsys, *common, "--run-dir", "run")[0] == 0
    pd.read_csv("p.csv").to_csv("saved.csv", index=False)
    write_config([{"type": "fake", "name": "one", **scorer}], {"method": "equal"})
    code, _, err = run(capsys, *common, *arguments)
    assert code == 2
    assert message in " ".join(err.split())


def test_unknown_commands_name_the_known_ones(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["sumbit"])
    assert stopped.value.code == 2
    assert "submit" in capsys.readouterr().err


def test_a_warning_is_a_sentence_without_the_place_in_the_code(folder, faults):
    write_config(
        [{"type": "fake", "name": "one"}, {"type": "faulty", "name": "two", "raise_at": 3}], {"method": "equal"}
    )
    words = ["predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv"]
    command = [sys.executable, "-m", "lmsys_ensemble", *words, "--on-failure", "reweight"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "warning: 12 of 12 rows lack something" in done.stderr
    assert "MissingMemberWarning" not in done.stderr
    assert ".py:" not in done.stderr
    assert "__main__" not in done.stderr


def test_help_tells_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "3 time was up" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "--input", "none.csv", "--output", "out.csv"],
        ["predict", "--input", "none.csv", "--output", "out.parquet"],
        ["submit", "--test", "none.csv", "--out", "out.csv"],
        ["plan", "--test", "none.csv"],
        ["validate", "--input", "none.csv"],
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[-1:]),
)
def test_a_table_without_rows_gives_no_figures_that_are_nan(folder, capsys, arguments):
    pd.read_csv("test.csv")[:0].to_csv("none.csv", index=False)
    code, out, err = run(capsys, *arguments, "--config", "ensemble.yaml")
    assert code == 0, err
    assert "nan" not in out.lower()
    code, out, err = run(capsys, *arguments, "--config", "ensemble.yaml", "--json")
    values = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert code == 0
    if arguments[0] in ("predict", "submit"):
        assert values["rows"] == 0
        assert values["mean"] == dict.fromkeys(THREE_WAY.columns)


LLAMA = {"type": "llama", "device": "cpu"}


@pytest.mark.parametrize(
    ("scorers", "blender", "words"),
    [
        ([{**LLAMA, "model": "./absent"}], None, "no folder here: './absent'"),
        ([{**LLAMA, "model": "models/absent"}], None, "no folder here: 'models/absent'"),
        ([{**LLAMA, "model": "BASE", "adapter": "absent"}], None, "there is no adapter folder"),
        ([{**LLAMA, "model": "BASE", "adapter": "ADAPTER", "device": "gpu"}], None, "unknown device 'gpu'"),
        ([{**LLAMA, "model": "BASE", "adapter": "ADAPTER", "quantization": "int4"}], None, "unknown quantization"),
        ([{**LLAMA, "model": "BASE"}], None, "no trained classification head"),
        ([{**LLAMA, "model": 5}], None, "'model' must be str"),
        ([{"type": "saved", "path": "absent.csv"}], None, "there is no file absent.csv"),
        ([{"type": "saved", "path": "other.csv"}], None, "has no probabilities for 12 of 12 ids"),
        ([{"type": "fake", "name": "a"}, {"type": "fake", "name": "a"}], None, "a occurs more than once"),
        ([{"type": "fake", "n_classes": 2}], None, "predicts ['model_a', 'model_b']"),
        ([{"type": "fake"}], {"weights": [0.6, 0.4]}, "2 weights for 1 scorers"),
        ([{"type": "fake"}], {"weights": "heavy"}, "expected a number"),
        ([{"type": "fake"}], {"method": "best"}, "best"),
        ([{"type": "fake"}], {"method": "auto"}, "has to learn first"),
        ([{"type": "fake"}], {"temperature": -1}, "temperature"),
    ],
)
def test_a_wrong_configuration_is_exit_code_2_wherever_it_is_used(folder, capsys, checkpoints, scorers, blender, words):
    places = {"BASE": str(checkpoints.base("llama")), "ADAPTER": str(checkpoints.adapter("llama"))}
    scorers = [{key: places.get(value, value) for key, value in scorer.items()} for scorer in scorers]
    write_config(scorers, blender or {"method": "equal"})
    pd.read_csv("sample.csv").assign(id=range(12)).to_csv("other.csv", index=False)
    for arguments in (
        ("validate", "--input", "test.csv"),
        ("predict", "--input", "test.csv", "--output", "p.csv"),
        ("submit", "--test", "test.csv", "--out", "p.csv"),
        ("evaluate", "--input", "labelled.csv"),
        ("plan", "--test", "test.csv"),
    ):
        code, out, err = run(capsys, *arguments, "--config", "ensemble.yaml")
        assert (code, out) == (2, ""), arguments
        assert words in " ".join(err.split()), arguments
        assert "Traceback" not in err
    assert not (folder / "p.csv").exists()
