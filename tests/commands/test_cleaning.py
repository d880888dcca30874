"""The command that cleans, on small files; what cleaning does is tested in tests/training/test_hygiene.py."""

import json

import pytest

from lmsys_ensemble.cli import main
from lmsys_ensemble.commands.table import make_parser
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.sources import SOURCES
from lmsys_ensemble.data.tables import read_table
from tests.cleaning.test_hygiene import make_table
from tests.data.test_sources import arena_table

ROWS = (("p", "x", "y", "A"), ("p", "Y", "X", "A"), ("q", None, None, "B"), ("r", "=1", "2", "tie"))


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "train.csv"
    make_table(*ROWS).to_csv(path, index=False)
    return path


def clean(capsys, *arguments):
    code = main(["clean", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_text_json_and_the_file_of_the_report_tell_the_same(capsys, data, tmp_path):
    code, out, _ = clean(capsys, "--input", data, "--output", tmp_path / "clean.csv", "--report", tmp_path / "r.json")
    assert code == 0
    assert "4 rows, 2 dropped, 2 left" in out
    assert f"wrote 2 rows to {tmp_path / 'clean.csv'}" in out
    _, out, _ = clean(capsys, "--input", data, "--output", tmp_path / "again.csv", "--json")
    values, written = json.loads(out), json.loads((tmp_path / "r.json").read_text())
    assert {**values, "output": ""} == {**written, "output": ""}
    assert values["counts"]["dropped"] == {"empty": 1, "swapped_duplicate": 1}
    assert values["settings"]["overlap"] == "battle"
    table = read_table(tmp_path / "clean.csv")
    assert table["id"].tolist() == [100, 103]
    assert parse_labels(table).tolist() == [[0.5, 0.5, 0], [0, 0, 1]]
    assert parse_battles(table)[1].response_a == ("=1",)
    assert (tmp_path / "clean.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()


def test_options_reach_the_settings(capsys, data, tmp_path):
    (tmp_path / "held.csv").write_bytes(data.read_bytes())
    options = ["--empty", "tie", "--duplicates", "keep", "--overlap", "keep", "--similar-prompts", "0.9"]
    code, out, _ = clean(
        capsys, "--input", data, "--output", tmp_path / "c.csv", "--against", tmp_path / "held.csv", "--json", *options
    )
    values = json.loads(out)
    assert code == 0
    assert values["rows_after"] == 4
    assert values["counts"]["kept"]["overlap"] == 4
    assert values["settings"]["similar_prompts"] == 0.9
    code, _, err = clean(capsys, "--input", data, "--output", tmp_path / "d.csv", "--similar-prompts", "3")
    assert code == 2
    assert "similar_prompts" in err


def test_public_sources_are_merged_with_tables_of_ones_own_and_what_is_skipped_is_said(capsys, data, tmp_path):
    arena_table().to_parquet(tmp_path / "arena.parquet")
    code, out, _ = clean(
        capsys, "--input", f"lmsys-33k={tmp_path / 'arena.parquet'}", data, "--output", tmp_path / "all.parquet"
    )
    assert code == 0
    assert "arena.parquet: rows that are no battles were skipped (1):\n  a0: user and assistant" in out
    table = read_table(tmp_path / "all.parquet")
    assert table["source"].tolist() == ["lmsys-33k"] * 2 + ["train"] * 2
    assert table["id"].tolist() == ["arena:58210e39", "arena:2eb92833", "train:100", "train:103"]
    assert len(parse_battles(table)) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "lmsys33k=x.csv"], "did you mean 'lmsys-33k'?"),
        (["--input", "=x.csv"], "must be SOURCE=FILE"),
        (["--input", "absent.csv"], "there is no file absent.csv"),
        (["--input", "train.csv", "--output", "train.csv"], "would be replaced"),
        (["--input", "train.csv", "--output", "clean.txt"], "--output must end in"),
        (["--input", "train.csv", "--report", "r.txt"], "--report must end in .json"),
        (["--input", "train.csv", "--against", "train.csv"], "cleaning leaves none of 4 rows"),
        (["--input", "wsdm=train.csv", "--task", "two_way"], "'tie'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(capsys, data, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    if "--output" not in arguments:
        arguments = [*arguments, "--output", "clean.csv"]
    before = data.read_bytes()
    code, _, err = clean(capsys, *arguments)
    assert code == 2
    assert words in " ".join(err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.csv"]
    assert data.read_bytes() == before


def test_the_help_names_every_source(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["clean", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"public format: {', '.join(SOURCES)}" in text
