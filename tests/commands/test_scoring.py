"""The commands that score: predict, submit, evaluate."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from lmsys_ensemble.bases import bundled
from lmsys_ensemble.blending.blender import MissingMemberWarning
from lmsys_ensemble.schema import THREE_WAY
from tests.commandline import run, write_config


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


def test_a_run_directory_resumes_and_shows_what_is_done(folder, capsys):
    arguments = ("predict", "--config", "ensemble.yaml", "--input", "test.csv", "--run-dir", "run")
    assert run(capsys, *arguments, "--output", "one.csv")[0] == 0
    assert run(capsys, *arguments, "--output", "two.csv")[0] == 0
    assert (folder / "one.csv").read_bytes() == (folder / "two.csv").read_bytes()
    code, out, _ = run(capsys, "runs", "show", "run")
    assert code == 0
    assert "12" in out


def test_an_evaluation_that_failed_goes_on_from_its_run_directory(folder, capsys, monkeypatch):
    monkeypatch.setenv("LMSYS_ENSEMBLE_FAULTS", "1")
    faulty = {"type": "faulty", "name": "two", "nan_for": f"prompt {2**31 + 3}"}
    write_config([{"type": "fake", "name": "one"}, faulty], {"method": "equal"})
    arguments = ("evaluate", "--config", "ensemble.yaml", "--input", "labelled.csv", "--run-dir", "run")
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert "no row may fail here" in " ".join(err.split())
    code, out, _ = run(capsys, "runs", "show", "run")
    assert "one: 12 of 12 rows" in out


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


def test_a_failing_scorer_ends_the_run_or_is_left_out_when_asked(folder, capsys, monkeypatch):
    monkeypatch.setenv("LMSYS_ENSEMBLE_FAULTS", "1")
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


WSDM = pd.DataFrame(
    {
        "id": ["a3f", "007", "c9"],
        "prompt": ["[not a list", "Was ist 2 + 2?", "2 + 2?"],
        "response_a": ["4", "Vier.", "four"],
        "response_b": ["5", "5", "null"],
        "winner": ["model_a", "model_b", "model_a"],
        "language": ["English", "German", "English"],
    }
)


@pytest.fixture
def wsdm(folder):
    """Write a file and a sample submission as those of the WSDM Cup."""
    WSDM.to_parquet("wsdm.parquet")
    pd.DataFrame({"id": WSDM["id"][::-1], "winner": "model_a"}).to_csv("wsdm_sample.csv", index=False)
    return folder


def write_two_way(n_classes):
    task = {2: "two_way", 3: "three_way"}[n_classes]
    scorers = [{"type": "fake", "seed": seed, "name": f"s{seed}", "n_classes": n_classes} for seed in (1, 2)]
    with open("two.yaml", "w") as file:
        yaml.safe_dump({"version": 1, "task": task, "scorers": scorers}, file)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_submit_writes_winners_for_a_sample_of_winners_and_says_where_ties_were_left_out(wsdm, n_classes, capsys):
    write_two_way(n_classes)
    asked = ("submit", "--config", "two.yaml", "--test", "wsdm.parquet", "--sample", "wsdm_sample.csv")
    code, out, err = run(capsys, *asked, "--out", "submission.csv", "--json")
    assert code == 0
    written = pd.read_csv("submission.csv", dtype=str)
    assert written.columns.tolist() == ["id", "winner"]
    assert written["id"].tolist() == ["c9", "007", "a3f"]
    assert run(capsys, "predict", "--config", "two.yaml", "--input", "wsdm.parquet", "--output", "p.csv")[0] == 0
    predicted = pd.read_csv("p.csv", dtype={"id": str}).set_index("id").loc[written["id"]]
    likelier = np.where(predicted["winner_model_a"] >= predicted["winner_model_b"], "model_a", "model_b")
    assert written["winner"].tolist() == likelier.tolist()
    assert json.loads(out)["mean"] == pytest.approx(
        {f"winner_{name}": float((likelier == name).mean()) for name in ("model_a", "model_b")}
    )
    assert ("the tie was left out" in err) == (n_classes == 3)


def test_evaluate_measures_accuracy_of_a_two_way_task_by_language(wsdm, capsys):
    write_two_way(2)
    code, out, _ = run(
        capsys, "evaluate", "--config", "two.yaml", "--input", "wsdm.parquet", "--by", "language", "--json"
    )
    assert code == 0
    figures = pd.DataFrame(json.loads(out)["figures"]).query("metric == 'accuracy' and model == 'blend'")
    assert figures.set_index("slice")["n_rows"].to_dict() == {"all": 3, "English": 2, "German": 1}


def test_evaluate_tells_scripts_itself_where_the_table_has_no_such_column(folder, capsys):
    table = pd.read_csv("labelled.csv").assign(prompt=['["Привет"]'] * 4 + ['["Hi"]'] * 8)
    table.to_csv("labelled.csv", index=False)
    code, out, _ = run(
        capsys, "evaluate", "--config", "ensemble.yaml", "--input", "labelled.csv", "--by", "script", "--json"
    )
    assert code == 0
    rows = pd.DataFrame(json.loads(out)["figures"]).query("by == 'script'").set_index("slice")["n_rows"]
    assert rows.to_dict() == {"cyrillic": 4, "latin": 8}
