"""The commands that score: predict, submit, evaluate."""

import json

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.blending.blender import MissingMemberWarning
from lmsys_ensemble.modeling import bundled
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
