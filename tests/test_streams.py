"""Readers that go away: real pipes, real processes."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from lmsys_ensemble.streams import PatientStream

ROWS = 200
PREDICT = ("predict", "--config", "e.yaml", "--input", "t.csv", "--output")


@pytest.fixture
def folder(tmp_path):
    table = pd.DataFrame({"id": range(ROWS), "prompt": "p", "response_a": "a", "response_b": "b"})
    table["prompt"] += table["id"].astype(str)
    table.to_csv(tmp_path / "t.csv", index=False)
    scorers = [{"type": "fake", "name": "one"}, {"type": "fake", "name": "two"}]
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({"version": 1, "scorers": scorers}))
    return tmp_path


def into_nobody(folder, arguments, *, also_stderr=False):
    """Run a command whose standard output, and standard error if wanted, nobody reads from the first byte on."""
    command = [sys.executable, "-m", "lmsys_ensemble", *arguments]
    # Buffered, as people have it: then the pipe is found broken only when all has been printed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if also_stderr else subprocess.PIPE,
        text=True,
    )  # fmt: skip
    process.stdout.close()
    errors = "" if also_stderr else process.stderr.read()
    if process.stderr is not None:
        process.stderr.close()
    return process.wait(), errors


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",), ("predict", "--help"), ("--version",), ("models", "list"), (*PREDICT, "/dev/stdout"),
        (*PREDICT, "p.csv", "--json"), ("validate", "--config", "e.yaml", "--input", "t.csv"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)  # fmt: skip
def test_a_reader_that_goes_away_ends_a_command_quietly(folder, arguments):
    code, errors = into_nobody(folder, arguments)
    assert code == 0
    for word in ("Broken pipe", "Traceback", "Exception", "error"):
        assert word not in errors


def test_nobody_on_standard_error_does_not_end_the_work(folder):
    code, _ = into_nobody(folder, (*PREDICT, "p.csv"), also_stderr=True)
    assert code == 0
    assert len(pd.read_csv(folder / "p.csv")) == ROWS


def test_what_is_buffered_for_nobody_is_dropped():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        patient = PatientStream(stream)
        assert patient.write("x" * 10) == 10
        patient.flush()
        assert patient.write("y" * 100_000) == 100_000
        assert patient.isatty() is False


def test_a_mistake_keeps_its_exit_code_though_nobody_reads_of_it(folder):
    assert into_nobody(folder, (*PREDICT, "p.txt"), also_stderr=True)[0] == 2
    assert into_nobody(folder, ("predict", "--inptu", "t.csv"), also_stderr=True)[0] == 2


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_name_that_the_terminal_cannot_show_does_not_end_a_command(folder, more):
    name = os.fsencode(folder) + b"/caf\xe9-\xe6\x97\xa5.csv"
    command = [sys.executable, "-m", "lmsys_ensemble", *PREDICT, name, *more]
    for encoding in ("utf-8", "ascii"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, cwd=folder, capture_output=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert b"caf" in done.stdout
        assert len(pd.read_csv(name.decode(errors="surrogateescape"))) == ROWS
