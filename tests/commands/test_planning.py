"""The command that says how long a run will take."""

import json

import pytest

from lmsys_ensemble.commands.planning import duration
from lmsys_ensemble.modeling import assembly
from tests.commandline import run, write_config


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


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (4.25, "4.2 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (724, "12 min 4 s"), (3_599.6, "1 h 0 min"),
     (11_100, "3 h 5 min"), (90_000, "25 h 0 min")],
)  # fmt: skip
def test_seconds_are_told_in_units_that_people_use(seconds, said):
    assert duration(seconds) == said
