import csv
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.data.tables import encode_table
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import escape_formula, open_descriptor, read_mapping, sha256_of, write_atomically, write_json

PATIENCE = 300
"""Seconds that a thread may take to end; one that does not is a failure, not a hanging test."""


# --- reading --------------------------------------------------------------------------------------------------------


def test_yaml_and_json_give_the_same_values(tmp_path):
    values = {"name": "grün", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", values)
    (tmp_path / "a.yaml").write_text("name: grün\nnumbers: [1, 2.5, null, true]\n", encoding="utf-8")
    assert read_mapping(tmp_path / "a.json") == read_mapping(tmp_path / "a.yaml") == values


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.yaml", None, "there is no file"),
        ("a.json", b"{", "cannot be read"),
        ("a.yaml", b"a: [1", "cannot be read"),
        ("a.yaml", b"\xff\xfe\xff", "cannot be read"),
        ("a.yaml", b"!!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named(name, content, words, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_mapping(path)
    assert str(path) in str(caught.value)


# --- writing --------------------------------------------------------------------------------------------------------


@given(content=st.text(st.characters(codec="utf-8"), max_size=50) | st.binary(max_size=50))
def test_what_is_written_is_what_is_read(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "new" / "file"
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [other.name for other in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(fails, tmp_path, monkeypatch):
    path = tmp_path / "submission.csv"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "submission.csv"
    path.write_text("old")
    seen = []
    replace = os.replace

    def look_and_replace(source, target):
        seen.append((path.read_text(), Path(source).read_text()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look_and_replace)
    write_atomically(path, "new")
    assert seen == [("old", "new")]
    assert path.read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    write_atomically(tmp_path / "written", "x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "written")}
    assert len(modes) == 1


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_respects_the_umask_and_an_old_one_keeps_its_mode(umask, tmp_path):
    (tmp_path / "secret").write_text("old")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "shared").write_text("old")
    (tmp_path / "shared").chmod(0o664)
    before = os.umask(umask)
    try:
        for name in ("new", "secret", "shared"):
            write_atomically(tmp_path / name, "new")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"new": 0o666 & ~umask, "secret": 0o600, "shared": 0o664}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_a_file_keeps_its_owner(tmp_path):
    (tmp_path / "theirs").write_text("old")
    os.chown(tmp_path / "theirs", 12345, 23456)
    write_atomically(tmp_path / "theirs", "new")
    there = (tmp_path / "theirs").stat()
    assert (there.st_uid, there.st_gid) == (12345, 23456)


def test_a_secret_is_at_no_moment_open_to_others(tmp_path, monkeypatch):
    (tmp_path / "secret").touch(0o600)
    modes = []
    real = os.fsync

    def look(descriptor):
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_atomically(tmp_path / "secret", "new")
    assert modes == [0o600]


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("old")
    (tmp_path / "link").symlink_to("real/a")
    (tmp_path / "dangling").symlink_to("real/b")
    (tmp_path / "chain").symlink_to("link")
    for name in ("link", "dangling", "chain"):
        write_atomically(tmp_path / name, name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == name
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["a", "b"]
    assert (tmp_path / "real" / "a").read_text() == "chain"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomically(pipe, "through the pipe")
    reader.join(PATIENCE)
    assert read == [b"through the pipe"]
    assert pipe.is_fifo()


def test_a_device_stays_a_device(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")
    for path in ("/dev/null", tmp_path / "null"):
        write_atomically(path, "gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="No space left"):
        write_atomically("/dev/full", "does not fit")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("redirected", [True, False], ids=["file", "pipe"])
def test_standard_output_is_written_to_where_it_stands(name, redirected, tmp_path):
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = (
        "from lmsys_ensemble.files import write_atomically as w\n"
        f"print('before'); w({name!r}, 'table\\n'); print('after')"
    )
    command = [sys.executable, "-c", code]
    if redirected:
        with open(tmp_path / "out", "wb") as file:
            subprocess.run(command, stdout=file, check=True, cwd=tmp_path)
        written = (tmp_path / "out").read_text()
    else:
        written = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert written == "before\ntable\nafter\n"


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/dev/stdin", 0), ("/dev/stderr", 2), ("/dev/fd/7", 7), ("/dev/../dev/stdout", 1), ("stdout", None),
     ("/dev/null", None), ("/dev/fd/x", None), ("/proc/1/fd/1", None)],
)  # fmt: skip
def test_open_files_are_known_by_their_names(path, expected):
    assert open_descriptor(path) == expected


def test_a_loop_of_links_is_no_open_file(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert open_descriptor(tmp_path / "loop") is None


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    name = "ü" * 125 + ".csv"
    write_atomically(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


# --- text in spreadsheets -------------------------------------------------------------------------------------------


SIGNS = ["=", "+", "-", "@", "＝", "＋", "－", "＠", "﹢", "﹣", "﹦", "﹫"]
UNSEEN = ["", " ", "\u00a0", "\ufeff", "\u200b", "\u200e", "\u2060", "\u3000", "\u00ad", "\x00", "\x1f", "\u2028",
          "\u2800", "\u3164", "\u0301", "\ufe0f", "\u202e", " \u200b\ufeff "]  # fmt: skip


@pytest.mark.parametrize("unseen", UNSEEN, ids=ascii)
@pytest.mark.parametrize("sign", SIGNS)
def test_a_formula_is_escaped_whatever_unseen_comes_before_it(unseen, sign):
    text = f"{unseen}{sign}HYPERLINK(A1)"
    assert escape_formula(text) == f"'{text}"
    assert escape_formula(f"harmless {text}") == f"harmless {text}"


@pytest.mark.parametrize("text", ["\t=1", "\r=1", "\n=1", "\r\n=1", "\tindented", "\nsecond line"])
def test_text_that_begins_with_a_tab_or_a_line_end_is_escaped(text):
    assert escape_formula(text).startswith("'")


@pytest.mark.parametrize("text", ["", " ", "a", "2 + 2 = 4", "'=1", "日本", "🍍", "1-2", "→ next", "−5"])
def test_other_text_stays_as_it_is(text):
    assert escape_formula(text) == text


@given(st.text(st.sampled_from("a=@\r\n\t ,\"'\u200b＝"), max_size=12))
def test_no_cell_of_a_written_table_begins_with_a_formula_for_any_reader(text):
    table = pd.DataFrame({"id": ["x"], "prompt": [escape_formula(text)], "n": [1]})
    content = encode_table(table, "worst.csv").decode()
    rows = list(csv.reader(io.StringIO(content, newline="")))
    assert [len(row) for row in rows] == [3, 3], "no cell ends its row"
    assert rows[1][1] == escape_formula(text)
    assert rows[1][1].lstrip(" \u200b")[:1] not in {"=", "@", "＝"}
    frame = pd.read_csv(io.StringIO(content, newline=""), dtype=str, keep_default_na=False)
    assert frame["prompt"].tolist() == [escape_formula(text)]


def test_json_is_readable_by_people(tmp_path):
    write_json(tmp_path / "a.json", {"name": "grün", "n": 1})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "grün",\n  "n": 1\n}\n'
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "grün", "n": 1}
