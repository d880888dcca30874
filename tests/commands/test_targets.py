"""Where results may go: found before anything is loaded, and no input is ever replaced."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lmsys_ensemble import Blender, Ensemble
from lmsys_ensemble.cli import main
from lmsys_ensemble.commands.targets import check_targets, check_writable, named
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.files import check_new_folder
from lmsys_ensemble.schema import THREE_WAY
from tests.predicted import battle_table, predictions, probability_table

N_ROWS = 40
PATIENCE = 300
"""Seconds that a thread may take to end; one that does not is a failure, not a hanging test."""
PREDICT = ("predict", "--config", "e.yaml", "--input", "test.csv")
SUBMIT = ("submit", "--config", "e.yaml", "--test", "test.csv")
FILES = ("--probabilities", "a.csv", "b.csv")
FIT = ("blend", *FILES, "--labels", "y.csv")
REPORT = ("report", *FILES, "--labels", "y.csv", "--battles", "test.csv", "--swapped", "a.csv", "b.csv")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a working folder with battles, predictions, labels, a sample, a blender and a configuration."""
    monkeypatch.chdir(tmp_path)
    members, labels = predictions(N_ROWS)
    for name, member in zip("ab", members.values(), strict=True):
        probability_table(member).to_csv(f"{name}.csv", index=False)
    battle_table(N_ROWS).to_csv("test.csv", index=False)
    probability_table(np.eye(3)[labels]).to_csv("y.csv", index=False)
    probability_table(np.full((N_ROWS, 3), 1 / 3)).to_csv("sample.csv", index=False)
    Blender("log").fit(list(members.values()), labels).save("blender.json")
    scorers = [{"type": "fake", "name": "one"}, {"type": "saved", "path": "a.csv", "name": "two"}]
    Path("e.yaml").write_text(yaml.safe_dump({"version": 1, "scorers": scorers, "blender": {"method": "equal"}}))
    (tmp_path / "link.csv").symlink_to("test.csv")
    os.link("test.csv", "hard.csv")
    return tmp_path


@pytest.fixture
def never_scored(monkeypatch):
    monkeypatch.setattr(Ensemble, "predict", lambda *_, **__: pytest.fail("scored"))


def run(capsys, *arguments):
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# --- an output that is an input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*PREDICT, "--output", "test.csv"), "--output test.csv is the same file as --input test.csv"),
        ((*PREDICT, "--output", "./x/../test.csv"), "the same file as --input"),
        ((*PREDICT, "--output", "link.csv"), "--output link.csv is the same file as --input test.csv"),
        ((*PREDICT, "--output", "hard.csv"), "--output hard.csv is the same file as --input test.csv"),
        ((*PREDICT, "--output", "a.csv"), "the same file as the path of scorer 'two', "),
        ((*SUBMIT, "--out", "test.csv"), "--out test.csv is the same file as --test test.csv"),
        ((*SUBMIT, "--out", "sample.csv", "--sample", "sample.csv"), "the same file as --sample sample.csv"),
        ((*SUBMIT, "--out", "e.yaml"), "--out (the submission) must end in .csv or .csv.gz, got 'e.yaml'"),
        ((*FIT, "--out", "b.json", "--predict-out", "a.csv"), "a.csv is the same file as --probabilities a.csv"),
        ((*FIT, "--out", "b.json", "--predict-out", "y.csv"), "--predict-out y.csv is the same file as --labels"),
        (("blend", *FILES, "--apply", "blender.json", "--out", "b.csv"), "the same file as --probabilities b.csv"),
        ((*REPORT, "--out", "r.html", "--worst-out", "b.csv"), "--worst-out b.csv is the same file as --probabilities"),
        ((*REPORT, "--out", "r.html", "--worst-out", "test.csv"), "the same file as --battles test.csv"),
        ((*PREDICT, "--output", "new", "--run-dir", "new"), "must end in"),
        ((*PREDICT, "--output", "new.csv", "--run-dir", "new.csv"), "would be where --run-dir new.csv makes a folder"),
        ((*PREDICT, "--output", "new.csv", "--run-dir", "new.csv/run"), "makes a folder"),
    ],
)  # fmt: skip
def test_an_output_that_is_an_input_is_refused_and_nothing_is_changed(folder, capsys, never_scored, arguments, message):
    (folder / "x").mkdir()
    before = contents(folder)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert contents(folder) == before


def test_a_page_or_blender_that_is_an_input_through_a_link_is_refused(folder, capsys):
    (folder / "r.html").symlink_to("a.csv")
    (folder / "b.json").symlink_to("y.csv")
    before = contents(folder)
    for arguments in ((*REPORT, "--out", "r.html"), (*FIT, "--out", "b.json")):
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert "is the same file as" in err
    assert contents(folder) == before


def test_two_outputs_in_one_file_are_refused(folder, capsys):
    (folder / "p.csv").symlink_to("same")
    (folder / "b.json").symlink_to("same")
    (folder / "r.html").symlink_to("same")
    for arguments in (
        (*FIT, "--out", "b.json", "--predict-out", "p.csv"), (*REPORT, "--out", "r.html", "--worst-out", "p.csv"),
    ):  # fmt: skip
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert "are the same file, p.csv; give two paths" in err


def test_a_runs_own_files_are_no_outputs_but_its_folder_may_hold_the_result(folder, capsys):
    assert run(capsys, *PREDICT, "--output", "p.csv", "--run-dir", "run")[0] == 0
    (folder / "j.csv").symlink_to("run/journal.sqlite")
    before = contents(folder / "run")
    code, _, err = run(capsys, *PREDICT, "--output", "j.csv", "--run-dir", "run")
    assert code == 2
    assert "is a file of the run in run itself" in err
    assert contents(folder / "run") == before
    assert run(capsys, *PREDICT, "--output", "run/p.csv", "--run-dir", "run")[0] == 0
    assert (folder / "run" / "p.csv").read_bytes() == (folder / "p.csv").read_bytes()


def test_a_pipe_that_two_inputs_would_read_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"--probabilities and --labels are the same pipe, .*only once"):
        check_targets([], [*named("--probabilities", [tmp_path / "pipe"]), *named("--labels", tmp_path / "pipe")])


def test_devices_may_be_shared():
    check_targets([("--out", "/dev/null"), ("--worst-out", "/dev/null")], [("--labels", "/dev/null")])


# --- an output that cannot be written -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/p.csv", "the folder {folder}/no does not exist; make it before the run"),
        ("x.csv", "x.csv is a folder"),
        ("loop.csv", "cannot be written: Too many levels of symbolic links"),
        ("dangling.csv", "the folder {folder}/absent does not exist"),
        ("test.csv/p.csv", "cannot be written: Not a directory"),
        ("n" * 300 + ".csv", "cannot be written: File name too long"),
        ("/proc/p.csv", "nothing can be written into the folder /proc"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_before_scoring(folder, capsys, never_scored, path, message):
    (folder / "x.csv").mkdir()
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "dangling.csv").symlink_to("absent/p.csv")
    for arguments in ((*PREDICT, "--output", path), (*SUBMIT, "--out", path)):
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert message.format(folder=folder) in err


@pytest.fixture
def ordinary_user(tmp_path):
    """Give up root's rights for a while, and leave the folder to the user."""
    if os.geteuid() != 0:
        yield
        return
    made_by_pytest = [path for path in tmp_path.parents if path.name.startswith(("pytest-", "popen-"))]
    for parent in [tmp_path, *made_by_pytest]:
        parent.chmod(0o755)
    os.chown(tmp_path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_or_file_without_permission_is_found(tmp_path, ordinary_user):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(0o555)
    with pytest.raises(InputError, match=r"nothing can be written into the folder .*kept: Permission denied"):
        check_writable(tmp_path / "kept" / "p.csv")
    with pytest.raises(InputError, match=r"nothing can be written into the folder .*kept"):
        check_new_folder(tmp_path / "kept" / "adapter" / "one")
    (tmp_path / "p.csv").touch(0o444)
    with pytest.raises(InputError, match=r"p\.csv is write-protected"):
        check_writable(tmp_path / "p.csv")
    check_writable(tmp_path / "q.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "p.csv"], "trying leaves nothing behind"


def test_a_folder_that_a_command_makes_is_checked_first(folder, capsys):
    for command in (
        ("train", "recipe.yaml", "--output", "test.csv"),
        ("import-checkpoint", "a.csv", "--base", "x", "--template", "turns", "--max-tokens", 8, "--output", "test.csv"),
    ):
        code, _, err = run(capsys, *command)
        assert code == 2
        assert "--output test.csv is a file, expected a folder" in err


def test_ids_that_the_format_cannot_hold_are_found_before_scoring(folder, capsys, never_scored):
    rows = [{"id": 2**70 + n, "prompt": "p", "response_a": "a", "response_b": "b"} for n in range(3)]
    Path("big.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, _, err = run(capsys, "predict", "--config", "e.yaml", "--input", "big.jsonl", "--output", "p.parquet")
    assert code == 2
    assert "ids cannot be written to p.parquet" in err


def test_the_sample_is_compared_before_scoring(folder, capsys, never_scored):
    sample = pd.read_csv("sample.csv")
    for changed, message in (
        (sample.iloc[1:], "1 rows of test.csv are not in the sample"),
        (pd.concat([sample, sample.tail(1)]), "sample: 1 ids occur more than once"),
        (sample.rename(columns={"winner_tie": "tie"}), "the sample has the columns id, winner_model_a"),
        (sample.assign(id=[f"0{row}" for row in sample["id"]]), "ids are int64 in the rows of test.csv, str"),
    ):
        changed.to_csv("sample.csv", index=False)
        code, _, err = run(capsys, *SUBMIT, "--sample", "sample.csv", "--out", "s.csv")
        assert code == 2
        assert message in err


# --- writing fails at the end ---------------------------------------------------------------------------------------


def kept_in(err):
    """Return the file that an error names."""
    return Path("".join(err.split("is kept in ")[1].split()))


@pytest.fixture
def temporary(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize(
    "command",
    [(*PREDICT, "--output"), (*SUBMIT, "--out"), ("blend", *FILES, "--apply", "blender.json", "--out")],
)
def test_a_full_disk_at_the_end_loses_nothing(folder, capsys, temporary, command):
    assert run(capsys, *command, "whole.csv")[0] == 0
    code, out, err = run(capsys, *command, "/dev/full")
    assert (code, out) == (1, "")
    assert "/dev/full could not be written: No space left on device" in err
    assert kept_in(err).parent == temporary
    assert kept_in(err).read_bytes() == (folder / "whole.csv").read_bytes()


def test_a_blender_and_a_page_are_kept_too(folder, capsys, temporary):
    for name in ("full.json", "full.html", "full.csv"):
        (folder / name).symlink_to("/dev/full")
    for arguments, beginning in (
        ((*FIT, "--method", "log", "--out", "full.json"), "{"),
        ((*FIT, "--method", "log", "--out", "new.json", "--predict-out", "full.csv"), "id,winner"),
        ((*REPORT, "--blender", "blender.json", "--out", "full.html"), "<!DOCTYPE html>"),
        ((*REPORT, "--blender", "blender.json", "--out", "r.html", "--worst-out", "full.csv"), "id,label"),
    ):
        code, _, err = run(capsys, *arguments)
        assert code == 1
        assert kept_in(err).read_text().startswith(beginning)


def test_what_a_run_has_computed_is_kept_in_its_folder(folder, capsys, temporary):
    code, _, err = run(capsys, *PREDICT, "--output", "/dev/full", "--run-dir", "run")
    assert code == 1
    assert kept_in(err).parent == folder / "run"
    assert len(pd.read_csv(kept_in(err))) == N_ROWS
    assert run(capsys, *PREDICT, "--output", "p.csv", "--run-dir", "run")[0] == 0, "the folder is still a run's"


def test_a_folder_that_vanishes_meanwhile_is_made_again_and_one_that_became_a_file_loses_nothing(
    folder, capsys, temporary, monkeypatch
):
    real = Ensemble.predict
    (folder / "out").mkdir()

    def predict(self, *arguments, **options):
        shutil.rmtree("out")
        if becomes_file:
            Path("out").touch()
        return real(self, *arguments, **options)

    monkeypatch.setattr(Ensemble, "predict", predict)
    becomes_file = False
    assert run(capsys, *PREDICT, "--output", "out/p.jsonl")[0] == 0
    becomes_file = True
    code, _, err = run(capsys, *PREDICT, "--output", "out/p.jsonl")
    assert code == 1
    assert kept_in(err).name.endswith("-p.jsonl")
    assert len(pd.read_json(kept_in(err), lines=True)) == N_ROWS


def test_a_reader_of_a_pipe_that_goes_away_loses_nothing(folder, capsys, temporary, monkeypatch):
    os.mkfifo("out")
    real = Ensemble.predict

    def predict(self, *arguments, **options):
        return pd.concat([real(self, *arguments, **options)] * 500, ignore_index=True)  # more than a pipe holds

    def read_a_bit():
        with open("out", "rb") as pipe:
            pipe.read(10)

    monkeypatch.setattr(Ensemble, "predict", predict)
    reader = threading.Thread(target=read_a_bit, daemon=True)
    reader.start()
    code, _, err = run(capsys, *PREDICT, "--output", "out")
    assert code == 1
    reader.join(PATIENCE)
    assert "out could not be written: Broken pipe" in err
    assert len(pd.read_csv(kept_in(err))) == 500 * N_ROWS


# --- pipes and devices ----------------------------------------------------------------------------------------------


def command_line(*arguments):
    return [sys.executable, "-m", "lmsys_ensemble", *map(str, arguments)]


@pytest.mark.parametrize("command", [(*PREDICT, "--output"), (*SUBMIT, "--out")])
def test_a_table_on_standard_output_stands_there_alone(folder, capsys, command):
    assert run(capsys, *command, "p.csv")[0] == 0
    done = subprocess.run(command_line(*command, "/dev/stdout"), capture_output=True, check=True)
    assert done.stdout == (folder / "p.csv").read_bytes()
    assert b"wrote 40 rows to /dev/stdout" in done.stderr


def test_json_and_a_table_do_not_share_standard_output(folder, capsys, never_scored):
    for command in ((*PREDICT, "--output", "/dev/stdout"), (*SUBMIT, "--out", "/dev/fd/1")):
        code, out, err = run(capsys, *command, "--json")
        assert (code, out) == (2, "")
        assert "both write to standard output; give one of them" in err


def test_battles_come_through_a_pipe_and_predictions_leave_through_one(folder, capsys):
    assert run(capsys, *PREDICT, "--output", "p.csv")[0] == 0
    os.mkfifo("in")
    os.mkfifo("out")
    read = []
    threads = [
        threading.Thread(target=lambda: Path("in").write_bytes(Path("test.csv").read_bytes()), daemon=True),
        threading.Thread(target=lambda: read.append(Path("out").read_bytes()), daemon=True),
    ]
    for thread in threads:
        thread.start()
    assert run(capsys, "predict", "--config", "e.yaml", "--input", "in", "--output", "out")[0] == 0
    for thread in threads:
        thread.join(PATIENCE)
    assert read == [(folder / "p.csv").read_bytes()]
    assert Path("out").is_fifo()


@pytest.mark.parametrize("name", ["p.tsv", "p.jsonl", "p.csv.gz", "p.jsonl.gz", "p.parquet"])
def test_every_format_goes_out_and_in_again(folder, capsys, name):
    columns = list(THREE_WAY.columns)
    assert run(capsys, *PREDICT, "--output", "p.csv")[0] == 0
    assert run(capsys, *PREDICT, "--output", name)[0] == 0
    assert run(capsys, "blend", "--probabilities", "p.csv", name, "--labels", "y.csv", "--out", "two.json", "--method",
               "equal")[0] == 0  # fmt: skip
    code, _, _ = run(capsys, "blend", "--probabilities", name, "p.csv", "--apply", "two.json", "--out", "same.csv")
    assert code == 0
    np.testing.assert_allclose(pd.read_csv("same.csv")[columns], pd.read_csv("p.csv")[columns], rtol=1e-12)
