"""How results are named and written, and where they are kept when that fails."""

import errno
import tempfile

import pandas as pd
import pytest

from lmsys_ensemble.commands.output import (
    Result,
    finish,
    is_standard_output,
    is_stream,
    say,
    shown,
    write_or_keep,
    write_table,
)
from lmsys_ensemble.errors import OutputError


def test_streams_are_named_as_they_were_given_and_files_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown("x/../p.csv") == str(tmp_path / "p.csv")
    for path in ("/dev/stdout", "/dev/fd/1", "/dev/null"):
        assert is_stream(path)
        assert shown(path) == path
    assert not is_stream("p.csv")
    assert [is_standard_output(path) for path in ("/dev/stdout", "/dev/fd/1", "/dev/stderr", "p.csv")] == [
        True,
        True,
        False,
        False,
    ]


def test_what_is_said_goes_to_standard_error_and_holds_no_control_characters(capsys):
    say("loading \x1b[31mred")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("loading ")
    assert err[:-1].isprintable()


def test_beside_a_table_on_standard_output_the_text_goes_to_standard_error(capsys):
    result = Result({"rows": 1}, "wrote it")
    assert finish(result, None, "p.csv") == result
    assert capsys.readouterr() == ("", "")
    assert finish(result, "p.csv", "/dev/stdout") == Result({"rows": 1}, "")
    assert capsys.readouterr() == ("", "wrote it\n")


def test_a_table_is_written_in_the_format_of_its_name(tmp_path):
    table = pd.DataFrame({"id": ["007"], "winner_tie": [1 / 3]})
    for name in ("p.parquet", "p.tsv"):
        write_table(table, tmp_path / name)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "p.parquet"), table)
    assert (tmp_path / "p.tsv").read_text() == f"id\twinner_tie\n007\t{1 / 3}\n"


class Refusing:
    """Writes a text, but not to the paths that it was told to refuse."""

    def __init__(self, *refused, error=None):
        self.refused = [str(path) for path in refused]
        self.error = error or OSError(errno.ENOSPC, "No space left on device")
        self.tried = []

    def __call__(self, path):
        self.tried.append(str(path))
        if any(str(path).startswith(refused) for refused in self.refused):
            raise self.error
        path.write_text("result")
        return "written"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Return a run directory, a folder for temporary files, and the current folder."""
    folders = [tmp_path / name for name in ("run", "temporary", "current")]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders[1]))
    monkeypatch.chdir(folders[2])
    return folders


def test_what_can_be_written_is_written_once(tmp_path):
    write = Refusing()
    assert write_or_keep(tmp_path / "p.csv", write) == "written"
    assert write.tried == [str(tmp_path / "p.csv")]


def test_the_run_directory_is_the_first_place_to_keep_a_result_then_others(tmp_path, places):
    target = tmp_path / "p.csv"
    for n_refused, kept_in in enumerate(places):
        write = Refusing(target, *places[:n_refused])
        with pytest.raises(OutputError, match=r"p\.csv could not be written: No space left on device\.") as caught:
            write_or_keep(target, write, places[0])
        (kept,) = kept_in.iterdir()
        assert str(caught.value).endswith(f"Nothing is lost: the result is kept in {kept}")
        assert kept.name.endswith("-p.csv")
        assert kept.read_text() == "result"


def test_where_nothing_can_be_kept_the_error_says_what_was_tried(tmp_path, places):
    with pytest.raises(OutputError) as caught:
        write_or_keep(tmp_path / "p.csv", Refusing(tmp_path))
    assert str(caught.value).endswith(f"and neither could a copy in {places[1]} or {places[2]}")


def test_a_reader_of_standard_output_that_has_gone_away_has_what_it_wanted(places):
    with pytest.raises(BrokenPipeError):
        write_or_keep("/dev/stdout", Refusing("/dev/stdout", error=BrokenPipeError()))
    assert [list(folder.iterdir()) for folder in places] == [[], [], []]
