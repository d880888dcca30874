import json

from lmsys_ensemble.cli import main
from lmsys_ensemble.scorers.registry import list_scorers


def test_every_type_gets_a_line_that_says_what_it_is(capsys):
    assert main(["scorers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [entry.name for entry in list_scorers()]
    assert all(len(line.split()) > 3 for line in lines)


def test_as_json(capsys):
    assert main(["scorers", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["scorers"]}
    assert entries["saved"]["path"] == "lmsys_ensemble.scorers.saved:SavedScorer"
    assert entries["saved"]["package"].startswith("lmsys-ensemble ")
    assert entries["saved"]["summary"].startswith("Probabilities from a CSV or Parquet file")
