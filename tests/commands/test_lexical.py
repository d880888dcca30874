"""The command fit-lexical."""

import json

import pandas as pd
import pytest

from tests.commandline import run
from tests.lexical.longer import make_table


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Write labelled battles into a working folder."""
    monkeypatch.chdir(tmp_path)
    make_table(60).to_csv("train.csv", index=False)
    make_table(20, seed=1).drop(columns="winner").to_csv("test.csv", index=False)


def test_a_model_is_fitted_measured_and_used_by_other_commands(rows, capsys):
    asked = ("fit-lexical", "--input", "train.csv", "--output", "counted", "--model", "logistic", "--folds", "2")
    code, out, err = run(capsys, *asked)
    assert code == 0
    assert "all folds" in out
    assert "log lines" in out
    assert "2 folds by prompt" in err
    assert run(capsys, "predict", "--config", "counted", "--input", "test.csv", "--output", "p.csv")[0] == 0
    assert len(pd.read_csv("p.csv")) == 20
    assert run(capsys, "validate", "--config", "counted")[0] == 0
    assert run(capsys, *asked)[0] == 2
    code, out, _ = run(capsys, *asked, "--overwrite", "--json")
    assert code == 0
    values = json.loads(out)
    assert values["figures"]["overall"]["all"]["rows"] == 60
    assert {"feature", "share"} <= set(values["importances"][0])


def test_wrong_files_are_named(rows, capsys):
    code, _, err = run(capsys, "fit-lexical", "--input", "train.csv", "nowhere.csv", "--output", "counted")
    assert code == 2
    assert "nowhere.csv" in err
