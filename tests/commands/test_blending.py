"""`lmsys-ensemble blend` as people use it: files in, a blender or blended predictions out."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble import Blender
from lmsys_ensemble.cli import main
from lmsys_ensemble.data.predictions import SoftLabelsWarning
from lmsys_ensemble.evaluation.metrics import log_loss
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from tests.predicted import predictions, probability_table, row_ids

COLUMNS = list(THREE_WAY.columns)
N_ROWS = 240


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a working folder with a.csv, b.parquet, each in an order of its own, and y.csv with groups."""
    monkeypatch.chdir(tmp_path)
    members, labels = predictions(N_ROWS)
    a, b = (probability_table(member) for member in members.values())
    a.to_csv("a.csv", index=False)
    b.sample(frac=1, random_state=1).to_parquet("b.parquet", index=False)
    y = pd.DataFrame({"id": row_ids(N_ROWS), "winner": np.array(THREE_WAY.classes)[labels]})
    y["group"] = np.arange(N_ROWS) // 2
    y.sample(frac=1, random_state=2).to_csv("y.csv", index=False)
    return tmp_path


@pytest.fixture
def members(folder):
    members, labels = predictions(N_ROWS)
    return list(members.values()), np.eye(3)[labels]


FILES = ("--probabilities", "a.csv", "b.parquet")


def run(capsys, *arguments):
    code = main(["blend", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def fit(capsys, *more):
    return run(capsys, *FILES, "--labels", "y.csv", "--out", "blender.json", *more)


def test_a_blender_is_fitted_on_rows_matched_by_id_and_written(folder, capsys, members):
    code, out, _ = fit(capsys, "--method", "log", "--json")
    assert code == 0
    arrays, labels = members
    order = pd.Index(row_ids(N_ROWS)).get_indexer(pd.read_csv("y.csv")["id"])
    expected = Blender("log").fit([array[order] for array in arrays], labels[order])
    stored = Blender.load("blender.json")
    np.testing.assert_allclose(stored.weights_, expected.weights_, rtol=1e-6)
    values = json.loads(out)
    assert (values["rows"], values["groups"]) == (N_ROWS, N_ROWS // 2)
    assert [member["name"] for member in values["members"]] == ["a", "b"]
    for member, array in zip(values["members"], arrays, strict=True):
        assert member["log_loss"] == pytest.approx(log_loss(labels, array))
    assert values["equal_log_loss"] == pytest.approx(log_loss(labels, np.mean(arrays, axis=0)))
    assert values["output"] == str(folder / "blender.json")
    assert values["out_of_fold"]["log_loss"] >= stored.log_loss_ - 0.01
    assert values["selection"] is None


def test_people_are_told_what_was_chosen_and_why(folder, capsys):
    code, out, _ = fit(capsys)
    assert code == 0
    blender = Blender.load("blender.json")
    assert blender.method == "auto"
    for words in ("log_loss  weight  temperature", "the class prior", "the equal average of all members",
                  "every row by one that was fitted without it", "logarithmic pool", "<- chosen", "wrote"):  # fmt: skip
        assert words in out
    lowest = blender.selection_["log_loss"].min()
    assert f"{lowest:.4f}" in out


def test_applying_gives_what_fitting_wrote_in_the_order_of_the_first_file(folder, capsys):
    assert fit(capsys, "--predict-out", "fitted.csv")[0] == 0
    code, out, _ = run(capsys, *FILES, "--apply", "blender.json", "--out", "blended.csv")
    assert code == 0
    assert f"wrote {N_ROWS} rows" in out
    assert (folder / "blended.csv").read_bytes() == (folder / "fitted.csv").read_bytes()
    table = pd.read_csv("blended.csv")
    assert table["id"].tolist() == row_ids(N_ROWS).tolist()
    assert table.columns.tolist() == ["id", *COLUMNS]
    np.testing.assert_allclose(table[COLUMNS].sum(axis=1), 1)
    assert run(capsys, *FILES, "--apply", "blender.json", "--out", "blended.parquet")[0] == 0
    pd.testing.assert_frame_equal(pd.read_parquet("blended.parquet"), table)


def test_rows_without_a_label_are_left_out_of_the_fit_which_is_said_and_blended_all_the_same(folder, capsys):
    pd.read_csv("y.csv").head(200).to_csv("y.csv", index=False)
    code, out, _ = fit(capsys, "--method", "log", "--predict-out", "all.csv")
    assert code == 0
    assert "a.csv has 40 rows without a label; they are not fitted on" in out
    assert Blender.load("blender.json").n_rows_ == 200
    assert len(pd.read_csv("all.csv")) == N_ROWS


def test_misaligned_members_are_named(folder, capsys):
    table = pd.read_csv("a.csv")
    table[COLUMNS] = np.random.default_rng(0).permutation(table[COLUMNS].to_numpy())
    table.to_csv("a.csv", index=False)
    code, out, err = fit(capsys, "--method", "log", "--json")
    assert (code, err) == (0, "")
    assert any(
        text.startswith("a (log loss") and "shuffling its rows would not hurt it" in text
        for text in json.loads(out)["warnings"]
    )


def test_text_ids_stay_as_they_came(folder, capsys):
    for name in ("a.csv", "y.csv"):
        table = pd.read_csv(name)
        table["id"] = [f"00{value}" for value in table["id"]]
        table.to_csv(name, index=False)
    table = pd.read_parquet("b.parquet")
    table.assign(id=[f"00{value}" for value in table["id"]]).to_parquet("b.parquet", index=False)
    assert fit(capsys, "--predict-out", "p.csv", "--method", "equal")[0] == 0
    assert pd.read_csv("p.csv", dtype={"id": str})["id"].tolist() == [f"00{value}" for value in row_ids(N_ROWS)]


def test_two_classes_are_seen_from_the_columns(folder, capsys):
    members, labels = predictions(80, n_classes=2)
    for name, member in members.items():
        probability_table(member, TWO_WAY).to_csv(f"{name}.csv", index=False)
    probability_table(np.eye(2)[labels], TWO_WAY).to_csv("two.csv", index=False)
    files = ("--probabilities", "m0.csv", "m1.csv")
    assert run(capsys, *files, "--labels", "two.csv", "--out", "two.json", "--method", "log")[0] == 0
    assert Blender.load("two.json").n_classes_ == 2
    assert run(capsys, *files, "--apply", "two.json", "--out", "two_blended.csv")[0] == 0
    assert pd.read_csv("two_blended.csv").columns.tolist() == ["id", *TWO_WAY.columns]
    renamed = ("--probabilities", "m0=a.csv", "m1=b.parquet")
    code, _, err = run(capsys, *renamed, "--apply", "two.json", "--out", "p.csv")
    assert code == 2
    assert "fitted on 2 classes, the files hold 3" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "b.json"), "give either --labels, to fit a blender, or --apply"),
        (("--out", "b.json", "--labels", "y.csv", "--apply", "b.json"), "give either --labels"),
        (("--out", "b.csv", "--labels", "y.csv"), "--out (the blender) must end in .json, got 'b.csv'"),
        (("--out", "b.json", "--apply", "b.json"), "--out (the predictions) must end in .csv, .tsv"),
        (("--out", "b.csv", "--apply", "b.json"), "there is no blender b.json"),
        (("--out", "b.csv", "--apply", "b.json", "--method", "log"), "--method is for fitting"),
        (("--out", "b.csv", "--apply", "b.json", "--predict-out", "p.csv"), "--predict-out is for fitting"),
        (("--out", "no/b.json", "--labels", "y.csv"), "does not exist"),
        (("--out", "b.json", "--labels", "y.csv", "--predict-out", "p.txt"), "--predict-out must end in"),
        (("--out", "b.json", "--labels", "x.csv"), "no file x.csv"),
        (("--out", "b.json", "--labels", "y.csv", "--groups", "prompt"), "y.csv has no column 'prompt'"),
        (("--out", "b.json", "--labels", "y.csv", "--calibration", "befor"), "did you mean 'before'?"),
        (("--out", "b.json", "--labels", "y.csv", "--method", "stack", "--calibration", "after"), "adds nothing"),
    ],
)
def test_a_mistake_is_one_readable_error_and_nothing_is_written(folder, capsys, arguments, message):
    code, out, err = run(capsys, *FILES, *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert not (folder / "b.json").exists()


def test_predictions_are_no_labels_of_themselves(folder, capsys):
    with pytest.warns(SoftLabelsWarning, match=r"0 of 240 rows of b\.parquet have a winner: labels are shares"):
        code, out, err = run(capsys, *FILES, "--labels", "b.parquet", "--out", "b.json")
    assert (code, out) == (2, "")
    said = " ".join(err.split())
    assert "the labels are the predictions of b.parquet, which would be measured against itself" in said
    assert not (folder / "b.json").exists()


def test_missing_ids_are_listed(folder, capsys):
    pd.read_csv("a.csv").iloc[3:].to_csv("a.csv", index=False)
    code, _, err = fit(capsys)
    assert code == 2
    first = int(row_ids(1)[0])
    shown = " ".join(err.split())
    assert f"a.csv has no probabilities for 3 of {N_ROWS} ids" in shown
    assert str(first) in shown


def test_files_that_differ_in_their_ids_are_not_blended(folder, capsys):
    assert fit(capsys, "--method", "log")[0] == 0
    pd.read_parquet("b.parquet").iloc[:-1].to_parquet("b.parquet", index=False)
    code, _, err = run(capsys, *FILES, "--apply", "blender.json", "--out", "p.csv")
    assert code == 2
    assert "b.parquet has no probabilities for 1 of 240 ids" in " ".join(err.split())
    code, _, err = run(
        capsys, "--probabilities", "b.parquet", "a.csv", "--apply", "blender.json", "--out", "p.csv"
    )  # fmt: skip
    assert code == 2
    assert "b.parquet has no probabilities for 1 of 240 ids" in " ".join(err.split())


def test_the_number_of_files_must_be_that_of_the_blender(folder, capsys):
    assert fit(capsys, "--method", "log")[0] == 0
    code, _, err = run(capsys, "--probabilities", "a.csv", "--apply", "blender.json", "--out", "p.csv")
    assert code == 2
    assert "fitted on 'a', 'b', got 'a': 'b' is missing" in " ".join(err.split())


# --- whose file is whose ---


def test_files_in_another_order_are_matched_by_name(folder, capsys):
    """The blender is so lopsided that weights of the wrong members show."""
    pd.read_csv("a.csv").assign(**dict.fromkeys(COLUMNS, 1 / 3)).to_csv("a.csv", index=False)
    assert fit(capsys, "--method", "linear", "--predict-out", "fitted.csv")[0] == 0
    assert Blender.load("blender.json").member_names_ == ("a", "b")
    turned = ("--probabilities", "b.parquet", "a.csv")
    code, out, _ = run(capsys, *turned, "--apply", "blender.json", "--out", "p.csv")
    assert code == 0
    assert re.search(r"weights: b [01]\.\d{4}, a [01]\.\d{4}\n", out)
    assert "note:" not in out
    expected = pd.read_csv("fitted.csv").set_index("id")
    predicted = pd.read_csv("p.csv").set_index("id").loc[expected.index]
    pd.testing.assert_frame_equal(predicted, expected, atol=1e-12)
    assert not np.allclose(expected, pd.read_csv("a.csv").set_index("id").loc[expected.index], atol=0.1)


def test_files_of_other_names_are_refused_with_the_words_to_type(folder, capsys):
    assert fit(capsys, "--method", "log", "--predict-out", "fitted.csv")[0] == 0
    (folder / "a.csv").rename(folder / "a_test.csv")
    (folder / "b.parquet").rename(folder / "b_test.parquet")
    code, _, err = run(
        capsys, "--probabilities", "b_test.parquet", "a_test.csv", "--apply", "blender.json", "--out", "p.csv"
    )  # fmt: skip
    assert code == 2
    shown = " ".join(err.split())
    assert "fitted on 'a', 'b', got 'b_test', 'a_test': 'a', 'b' are missing" in shown
    assert "--probabilities a=b_test.parquet b=a_test.csv if they come in the order of fitting" in shown
    assert not (folder / "p.csv").exists()
    named = ("--probabilities", "b=b_test.parquet", "a=a_test.csv")
    assert run(capsys, *named, "--apply", "blender.json", "--out", "p.csv")[0] == 0
    expected = pd.read_csv("fitted.csv").set_index("id")
    predicted = pd.read_csv("p.csv").set_index("id").loc[expected.index]
    pd.testing.assert_frame_equal(predicted, expected, atol=1e-12)


def test_names_can_be_given_when_fitting(folder, capsys):
    named = ("--probabilities", "gemma=a.csv", "llama=b.parquet")
    code, out, _ = run(capsys, *named, "--labels", "y.csv", "--out", "blender.json", "--method", "log", "--json")
    assert code == 0
    assert Blender.load("blender.json").member_names_ == ("gemma", "llama")
    assert [member["name"] for member in json.loads(out)["members"]] == ["gemma", "llama"]
    code, _, err = run(capsys, *FILES, "--apply", "blender.json", "--out", "p.csv")
    assert code == 2
    assert "fitted on 'gemma', 'llama', got 'a', 'b'" in " ".join(err.split())


def test_a_file_of_an_earlier_release_trusts_the_order_and_says_so(folder, capsys):
    assert fit(capsys, "--method", "log")[0] == 0
    content = json.loads((folder / "blender.json").read_text())
    del content["fitted"]["members"], content["fitted"]["fingerprints"], content["fitted"]["classes"]
    del content["parameters"]["classes"]
    (folder / "old.json").write_text(json.dumps(content))
    code, out, _ = run(capsys, *FILES, "--apply", "old.json", "--out", "p.csv", "--json")
    assert code == 0
    (warning,) = json.loads(out)["warnings"]
    assert "the files are trusted to come in the order of fitting, a, b" in warning


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("x=a.csv", "x=b.parquet"), "--probabilities: members need different names; 'x' occurs more than once"),
        (("=a.csv", "b.parquet"), "'=a.csv' must be name=file or a file"),
        (("a=", "b.parquet"), "'a=' must be name=file or a file"),
        (("b=a.csv", "b.parquet"), "'b' occurs more than once"),
    ],
)
def test_names_that_cannot_be_are_refused(folder, capsys, files, message):
    code, _, err = run(capsys, "--probabilities", *files, "--labels", "y.csv", "--out", "b.json")
    assert code == 2
    assert message in " ".join(err.split())


def test_a_file_whose_own_name_has_an_equals_sign_is_a_file(folder, capsys):
    (folder / "lr=0.1").mkdir()
    (folder / "a.csv").rename(folder / "lr=0.1" / "oof=a.csv")
    files = ("--probabilities", "lr=0.1/oof=a.csv", "b.parquet")
    assert run(capsys, *files, "--labels", "y.csv", "--out", "b.json", "--method", "log")[0] == 0
    assert Blender.load("b.json").member_names_ == ("oof=a", "b")


def test_the_competitions_rows(data_folder, tmp_path, monkeypatch, capsys):
    path = data_folder / "lmsys_two_models_oof.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    monkeypatch.chdir(tmp_path)
    table = pd.read_csv(path)
    for prefix in ("m1", "m2"):
        renamed = table[["id", f"{prefix}_a", f"{prefix}_b", f"{prefix}_tie"]].set_axis(["id", *COLUMNS], axis=1)
        renamed.sample(frac=1, random_state=0).to_csv(f"{prefix}.csv", index=False)
    pd.DataFrame({"id": table["id"], "winner": np.array(THREE_WAY.classes)[table["label"]]}).to_csv("y.csv")
    code, out, _ = run(
        capsys, "--probabilities", "m1.csv", "m2.csv", "--labels", "y.csv", "--out", "blender.json", "--json"
    )  # fmt: skip
    assert code == 0
    values = json.loads(out)
    assert values["rows"] == len(table)
    best = min(member["log_loss"] for member in values["members"])
    assert values["out_of_fold"]["log_loss"] < values["equal_log_loss"] < best < values["class_prior"]
    assert values["out_of_fold"]["difference"] == pytest.approx(
        values["out_of_fold"]["log_loss"] - values["equal_log_loss"]
    )
    assert values["warnings"] == []
