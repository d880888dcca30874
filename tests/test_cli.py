"""The command line as people use it."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from lmsys_ensemble.blending.blender import MissingMemberWarning
from lmsys_ensemble.cli import main
from lmsys_ensemble.modeling import assembly, bundled
from lmsys_ensemble.schema import THREE_WAY


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a working folder with test.csv, labelled.csv, sample.csv and ensemble.yaml."""
    monkeypatch.chdir(tmp_path)
    ids = [2**31 + row for row in range(12)]
    texts = {name: [json.dumps([f"{name} {row}"]) for row in ids] for name in ("prompt", "response_a", "response_b")}
    table = pd.DataFrame({"id": ids, **texts})
    table.to_csv("test.csv", index=False)
    labels = np.eye(3)[np.arange(12) % 3]
    labelled = table.assign(source=["one", "two"] * 6)
    labelled[list(THREE_WAY.columns)] = labels
    labelled.to_csv("labelled.csv", index=False)
    sample = pd.DataFrame({"id": ids[::-1], **dict.fromkeys(THREE_WAY.columns, 1 / 3)})
    sample.to_csv("sample.csv", index=False)
    scorers = [{"type": "fake", "seed": 1, "name": "one"}, {"type": "fake", "seed": 2, "name": "two"}]
    write_config(scorers)
    return tmp_path


def write_config(scorers, blender=None):
    with open("ensemble.yaml", "w") as file:
        yaml.safe_dump({"version": 1, "scorers": scorers, "blender": blender or {"weights": [3, 1]}}, file)


@pytest.fixture
def faults(monkeypatch):
    """Let configurations name the scorer that fails on purpose."""
    monkeypatch.setenv("LMSYS_ENSEMBLE_FAULTS", "1")


def run(capsys, *arguments):
    capsys.readouterr()  # what fixtures have printed
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_submit_writes_a_submission_in_the_samples_order(folder, capsys):
    code, out, err = run(
        capsys,
        "submit",
        "--config",
        "ensemble.yaml",
        "--test",
        "test.csv",
        "--out",
        "sub.csv",
        "--sample",
        "sample.csv",
    )
    assert code == 0
    written = pd.read_csv("sub.csv")
    assert written["id"].tolist() == pd.read_csv("sample.csv")["id"].tolist()
    np.testing.assert_allclose(written[list(THREE_WAY.columns)].sum(axis=1), 1)
    assert str(folder / "sub.csv") in out
    named = sorted(line.split(" ")[0] for line in err.splitlines())
    assert named == ["one", "two"], "one line a scorer off a terminal, in the order in which they are done"


def test_predict_gives_the_same_as_csv_and_parquet_and_json_on_request(folder, capsys):
    for name in ("p.csv", "p.parquet"):
        code, out, _ = run(
            capsys, "predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", name, "--json"
        )
        assert code == 0
        assert json.loads(out)["rows"] == 12
    pd.testing.assert_frame_equal(pd.read_csv("p.csv"), pd.read_parquet("p.parquet"))


def test_evaluate_measures_every_scorer_the_blend_and_the_prior_by_source(folder, capsys):
    code, out, _ = run(capsys, "evaluate", "--config", "ensemble.yaml", "--input", "labelled.csv", "--json")
    assert code == 0
    figures = pd.DataFrame(json.loads(out)["figures"])
    assert set(figures["slice"]) == {"all", "one", "two"}
    assert set(figures["model"]) == {"one", "two", "blend", "class prior"}
    prior = figures.query("slice == 'all' and model == 'class prior' and metric == 'log_loss'")
    assert prior["value"].item() == pytest.approx(np.log(3))
    assert "swap_flip_rate" not in set(figures["metric"])
    code, out, _ = run(capsys, "evaluate", "--config", "ensemble.yaml", "--input", "labelled.csv", "--swap")
    assert code == 0
    assert "swap_flip_rate" in out


def test_validate_says_what_is_in_the_data_without_loading(folder, capsys):
    code, out, _ = run(capsys, "validate", "--config", "ensemble.yaml", "--input", "labelled.csv")
    assert code == 0
    assert "12 rows" in out
    assert "labels valid" in out


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
    "arguments",
    [
        ("submit", "--test", "tset.csv"),
        ("predict", "--input", "tset.csv", "--output", "p.csv"),
        ("evaluate", "--input", "test.csv"),
    ],
)
def test_a_mistake_in_the_data_is_said_before_a_model_is_fetched(folder, capsys, monkeypatch, arguments):
    monkeypatch.setattr(bundled, "ensure_bundled", lambda *_: pytest.fail("fetched"))
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("error: ")


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
        ({"type": "saved", "path": "saved.csv"}, ("--swap", "all"), "--swap all needs scorers that read the texts"),
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


def test_import_checkpoint_makes_a_folder_that_a_scorer_loads(folder, capsys, checkpoints):
    base, adapter = checkpoints.base("llama"), checkpoints.adapter("llama")
    code, out, err = run(
        capsys, "import-checkpoint", adapter, "--base", base, "--template", "kaggle-llama", "--max-tokens", 64,
        "--output", "imported",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "golden.json" in out
    write_config([{"type": "llama", "model": str(base), "adapter": "imported"}], {"method": "equal"})
    code, _, _ = run(capsys, "predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv")
    assert code == 0
    code, _, err = run(
        capsys, "import-checkpoint", adapter, "--base", base, "--template", "kaggle-lama", "--max-tokens", 64,
        "--output", "again",
    )  # fmt: skip
    assert code == 2
    assert "did you mean 'kaggle-llama'" in " ".join(err.split())


def test_an_assumed_template_is_said(folder, checkpoints):
    write_config([{"type": "llama", "model": str(checkpoints.classifier("llama"))}], {"method": "equal"})
    command = [sys.executable, "-m", "lmsys_ensemble.cli", "validate", "--config", "ensemble.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "no recipe.json" in done.stderr
    assert "template kaggle-llama" in done.stderr


def test_plan_times_a_sample_and_says_whether_it_fits(folder, capsys):
    arguments = ("plan", "--config", "ensemble.yaml", "--test", "test.csv", "--rows-timed", "5")
    code, out, _ = run(capsys, *arguments, "--budget", "3600")
    assert code == 0
    assert "12 rows on cpu" in out
    assert "timed on 5 rows" in out
    assert out.rstrip().endswith("within the budget"), "what is timed is not called arithmetic"
    code, out, _ = run(capsys, *arguments, "--budget", "0", "--json")
    assert code == 0
    values = json.loads(out)
    assert (values["n_rows"], values["fits_budget"]) == (12, False)
    assert [scorer["name"] for scorer in values["scorers"]] == ["one", "two"]


def test_plan_of_few_rows_loads_nothing_and_says_so(folder, capsys, checkpoints, monkeypatch):
    monkeypatch.setattr(assembly, "load_classifier", lambda *_, **__: pytest.fail("loaded"))
    base, adapter = checkpoints.base("llama"), checkpoints.adapter("llama")
    write_config([{"type": "llama", "model": str(base), "adapter": str(adapter), "device": "cpu"}], {"method": "equal"})
    code, out, err = run(capsys, "plan", "--config", "ensemble.yaml", "--test", "test.csv")
    assert code == 0, err
    assert "by arithmetic, not timed" in out
    assert "too few rows to time: loading a model would take longer than a tenth of the run" in out
    assert "load 0.6 s, then" in out
    assert "(arithmetic, as if nothing else ran here; may be off by half" in out.splitlines()[-1]
    assert "start (imports, reading, checks)" in out
    code, out, err = run(capsys, "plan", "--config", "ensemble.yaml", "--test", "test.csv", "--devices", "2xT4")
    assert code == 0, err
    assert "start and loading are left out" in out


def test_plan_names_the_devices_it_knows(folder, capsys):
    code, _, err = run(capsys, "plan", "--test", "test.csv", "--devices", "2xT5")
    assert code == 2
    assert "H100" in err


def test_a_run_directory_resumes_and_shows_what_is_done(folder, capsys):
    arguments = ("predict", "--config", "ensemble.yaml", "--input", "test.csv", "--run-dir", "run")
    assert run(capsys, *arguments, "--output", "one.csv")[0] == 0
    assert run(capsys, *arguments, "--output", "two.csv")[0] == 0
    assert (folder / "one.csv").read_bytes() == (folder / "two.csv").read_bytes()
    code, out, _ = run(capsys, "runs", "show", "run")
    assert code == 0
    assert "12" in out


def test_options_of_a_run_reach_it(folder, capsys):
    arguments = ("predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv")
    run(capsys, *arguments)
    plain = pd.read_csv("p.csv")
    assert run(capsys, *arguments, "--swap", "all", "--devices", "cpu", "cpu", "--time-budget", "600")[0] == 0
    assert not np.allclose(pd.read_csv("p.csv")["winner_tie"], plain["winner_tie"])
    code, _, err = run(capsys, *arguments, "--rescore")
    assert code == 2
    assert "--rescore concerns what a run directory holds; pass --run-dir, too" in " ".join(err.split())
    code, _, err = run(capsys, *arguments, "--swap-share", "2")
    assert code == 2
    assert "--swap-share" in err


def test_a_failing_scorer_ends_the_run_or_is_left_out_when_asked(folder, capsys, faults):
    write_config(
        [{"type": "fake", "name": "one"}, {"type": "faulty", "name": "two", "raise_at": 3}], {"method": "equal"}
    )
    arguments = ("predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv")
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert "two" in err
    assert "Pass --run-dir to keep finished work" in " ".join(err.split())
    with pytest.warns(MissingMemberWarning, match="12 without two"):
        code, _, _ = run(capsys, *arguments, "--on-failure", "reweight")
    assert code == 0
    assert pd.read_csv("p.csv")["fallback"].str.contains("two").all()


def test_a_warning_is_a_sentence_without_the_place_in_the_code(folder, faults):
    write_config(
        [{"type": "fake", "name": "one"}, {"type": "faulty", "name": "two", "raise_at": 3}], {"method": "equal"}
    )
    words = ["predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv"]
    command = [sys.executable, "-m", "lmsys_ensemble.cli", *words, "--on-failure", "reweight"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "warning: 12 of 12 rows lack something" in done.stderr
    assert "MissingMemberWarning" not in done.stderr
    assert ".py:" not in done.stderr
    assert "__main__" not in done.stderr


def test_validate_lists_faults_of_several_scorers_the_blender_and_the_data(folder, capsys):
    write_config([{"type": "fkae"}, {"type": "fake", "sed": 1}], {"methd": "equal"})
    code, out, err = run(capsys, "validate", "--config", "ensemble.yaml", "--input", "none.csv")
    assert (code, out) == (2, "")
    for words in ("4 things are wrong", "'fkae'", "'sed'", "'methd'", "none.csv"):
        assert words in err


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


def test_a_table_without_rows_cannot_be_measured(folder, capsys):
    pd.read_csv("labelled.csv")[:0].to_csv("none.csv", index=False)
    code, out, err = run(capsys, "evaluate", "--config", "ensemble.yaml", "--input", "none.csv")
    assert (code, out) == (2, "")
    assert "no rows" in err


def test_files_do_not_hold_the_tables_index(folder, capsys):
    run(capsys, "predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "out.parquet")
    run(capsys, "submit", "--config", "ensemble.yaml", "--test", "test.csv", "--out", "out.csv")
    assert pd.read_parquet("out.parquet").columns.tolist() == ["id", *THREE_WAY.columns]
    assert pd.read_csv("out.csv").columns.tolist() == ["id", *THREE_WAY.columns]


def test_validate_lists_all_that_is_wrong(folder, capsys, checkpoints):
    base, adapter = checkpoints.base("llama"), checkpoints.adapter("llama")
    write_config(
        [
            {"type": "llama", "model": str(base), "adapter": str(adapter), "quantization": "nf5", "name": "one"},
            {"type": "llama", "model": "./absent", "adapter": "nowhere", "name": "two"},
            {"type": "gemma", "model": str(base), "name": "three", "dtype": "half"},
        ],
        {"weights": [0.6, 0.4]},
    )
    pd.read_csv("test.csv").drop(columns="response_a").to_csv("wrong.csv", index=False)
    code, out, err = run(capsys, "validate", "--config", "ensemble.yaml", "--input", "wrong.csv")
    said = " ".join(err.split())
    assert (code, out) == (2, "")
    for words in (
        "8 things are wrong",
        "columns are missing: 'response_a'",
        "2 weights for 3 scorers",
        "scorer 'one': unknown quantization 'nf5'",
        "scorer 'two': no folder here: './absent'",
        "scorer 'two': there is no adapter folder nowhere",
        "scorer 'three': unknown dtype 'half'",
        "has no trained classification head",
        "GemmaScorer takes gemma, gemma2, gemma3, gemma3_text",
    ):
        assert words in said, words


def test_validate_says_what_is_missing_here_but_not_wrong(folder, capsys, checkpoints, monkeypatch, tmp_path):
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(tmp_path / "cache"))
    base, adapter = checkpoints.base("llama"), checkpoints.adapter("llama")
    write_config(
        [
            {"type": "llama", "model": str(base), "adapter": str(adapter), "device": "cuda:7", "name": "one"},
            {"type": "llama", "model": "bundled:smollm2-135m-instruct", "adapter": str(adapter), "name": "two"},
        ]
    )
    code, out, err = run(capsys, "validate", "--config", "ensemble.yaml")
    assert code == 0, err
    assert "cuda:7 is not on this machine" in out
    assert "bundled:smollm2-135m-instruct has not been fetched yet" in out
    code, _, err = run(capsys, "predict", "--config", "ensemble.yaml", "--input", "test.csv", "--output", "p.csv")
    assert code == 2


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


@pytest.mark.parametrize(
    "change",
    [
        ("--base", "./absent"),
        ("--base", "test.csv"),
        ("--base", "."),
        ("--template", "absent"),
        ("--truncation", "absent"),
        ("--max-tokens", 2),
        ("--classes", "a"),
        ("--device", "cuda:99"),
        ("--device", "gpu"),
        ("--output", "test.csv"),
        ("--output", "."),
        ("SOURCE", "absent.pth"),
    ],
)
def test_wrong_arguments_of_import_checkpoint_are_exit_code_2(folder, capsys, checkpoints, change):
    values = {
        "SOURCE": checkpoints.adapter("llama"), "--base": checkpoints.base("llama"), "--template": "turns",
        "--max-tokens": 64, "--output": "out", **dict([change]),
    }  # fmt: skip
    source = values.pop("SOURCE")
    code, out, err = run(capsys, "import-checkpoint", source, *(part for pair in values.items() for part in pair))
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({"base_model": "./absent"}, ()),
        ({"template": "absent"}, ()),
        ({"lora": {"r": 0}}, ()),
        ({"data": {"files": ["absent.csv"]}}, ()),
        ({"absent": 1}, ()),
        ({}, ("--device", "cuda:99")),
        ({}, ("--output", "test.csv")),
        ({}, ("--output", ".")),
        (None, ()),
    ],
)
def test_wrong_recipes_and_arguments_of_train_are_exit_code_2(folder, capsys, checkpoints, changes, arguments):
    if changes is not None:
        recipe = {"name": "mine", "scorer": "llama", "base_model": str(checkpoints.base("llama")), "max_tokens": 64}
        with open("train.yaml", "w") as file:
            yaml.safe_dump({**recipe, "data": {"files": ["labelled.csv"]}, **changes}, file)
    values = {"--output": "out", **dict(zip(arguments[::2], arguments[1::2], strict=True))}
    code, out, err = run(capsys, "train", "train.yaml", *(part for pair in values.items() for part in pair))
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert not (folder / "out").exists()
