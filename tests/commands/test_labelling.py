import json

import numpy as np
import pandas as pd
import pytest
import yaml

from lmsys_ensemble.cli import main
from lmsys_ensemble.data.corpus import as_labelled
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.files import sha256_of
from lmsys_ensemble.schema import THREE_WAY
from tests.training.test_pseudo_labels import SAID, TABLE

COLUMNS = list(THREE_WAY.columns)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write battles, two files of predictions in other orders, and an ensemble; work there."""
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("pool.csv", index=False)
    TABLE.iloc[:2].to_csv("held.csv", index=False)
    one = TABLE[["id"]].join(pd.DataFrame(SAID, columns=COLUMNS))
    one.iloc[::-1].to_csv("one.csv", index=False)
    two = TABLE[["id"]].join(pd.DataFrame(np.roll(SAID, 1, axis=1), columns=COLUMNS))
    two.assign(fallback=["", "", "llama: out of memory", *[""] * 5]).to_parquet("two.parquet")
    scorers = [{"type": "fake", "seed": 1, "name": "first"}, {"type": "fake", "seed": 2, "name": "second"}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"version": 1, "scorers": scorers}))
    return tmp_path


def label(capsys, *arguments):
    given = ["pseudo-label", *map(str, arguments)]
    for option, value in (("--input", "pool.csv"), ("--output", "labelled.parquet")):
        given += [] if option in given else [option, value]
    code = main(given)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_files_are_averaged_by_id_and_named_with_their_hashes(folder, capsys):
    code, out, _ = label(
        capsys, "--probabilities", "one.csv", "llama=two.parquet", "--against", "held.csv", "--report", "report.json"
    )
    assert code == 0
    assert "8 rows, 5 kept, 3 dropped" in out
    table = read_table("labelled.parquet")
    assert table["id"].tolist() == [13, 14, 15, 16, 17]
    np.testing.assert_allclose(table[COLUMNS], ((SAID + np.roll(SAID, 1, axis=1)) / 2)[3:])
    hashes = {name: sha256_of(name) for name in ("one.csv", "two.parquet")}
    assert set(table["labelled_by"]) == {f"one:{hashes['one.csv'][:12]} llama:{hashes['two.parquet'][:12]}"}
    report = json.loads((folder / "report.json").read_text())
    assert report["models"] == [
        {"name": "one", "file": "one.csv", "sha256": hashes["one.csv"]},
        {"name": "llama", "file": "two.parquet", "sha256": hashes["two.parquet"]},
    ]
    assert report["dropped"] == {"overlap": [10, 11], "incomplete": [12]}
    assert report["settings"]["source"] == "pseudo"


def test_the_same_files_give_the_same_bytes_and_json_says_what_the_report_does(folder, capsys):
    options = ["--probabilities", "one.csv", "--temperature", "1.5", "--min-confidence", "0.5", "--hard"]
    label(capsys, *options, "--report", "report.json")
    _, out, _ = label(capsys, *options, "--output", "again.parquet", "--json")
    assert (folder / "labelled.parquet").read_bytes() == (folder / "again.parquet").read_bytes()
    written = json.loads((folder / "report.json").read_text())
    assert {**json.loads(out), "output": ""} == {**written, "output": ""}
    assert written["settings"] == {
        "hard": True, "temperature": 1.5, "min_confidence": 0.5, "max_per_class": None, "balance": False,
        "source": "pseudo",
    }  # fmt: skip
    assert read_table("labelled.parquet")["labelled_by"].iloc[0].endswith(" temperature=1.5")


def test_an_ensemble_labels_what_it_predicts(folder, capsys):
    code, out, _ = label(capsys, "--config", "config.yaml", "--json", "--run-dir", "run")
    assert code == 0
    main(["predict", "--config", "config.yaml", "--input", "pool.csv", "--output", "predicted.csv"])
    table = read_table("labelled.parquet")
    np.testing.assert_allclose(as_labelled(table, THREE_WAY).labels, read_table("predicted.csv")[COLUMNS], atol=1e-9)
    models = json.loads(out)["models"]
    assert [model["name"] for model in models] == ["first", "second", "blender"]
    assert len({model["fingerprint"] for model in models}) == 3
    assert table["labelled_by"][0] == " ".join(f"{model['name']}:{model['fingerprint'][:12]}" for model in models)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either --probabilities"),
        (["--probabilities", "one.csv", "--config", "config.yaml"], "give either --probabilities"),
        (["--probabilities", "one.csv", "--run-dir", "run"], "--run-dir and --devices are for --config"),
        (["--probabilities", "held.csv"], "held.csv lacks the columns winner_model_a"),
        (["--probabilities", "few.csv"], "few.csv has no probabilities for 6 of 8 ids"),
        (["--probabilities", "one.csv", "--min-confidence", "2"], "min_confidence: Input should be less than"),
        (["--probabilities", "one.csv", "--output", "one.csv"], "which would be replaced"),
        (["--probabilities", "one.csv", "--output", "out.txt"], "--output must end in"),
        (["--probabilities", "one.csv", "--report", "out.txt"], "--report must end in .json"),
        (["--probabilities", "one.csv", "--input", "labelled.csv"], "labels already (winner)"),
        (["--probabilities", "one.csv", "--min-confidence", "0.99"], "none of 8 rows is left"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(folder, capsys, arguments, words):
    TABLE.assign(winner="tie").to_csv("labelled.csv", index=False)
    read_table("one.csv").head(2).to_csv("few.csv", index=False)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, _, err = label(capsys, *arguments)
    assert code == 2
    assert words in " ".join(err.split())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
