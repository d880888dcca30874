"""The folder of a run: whose it is, who works in it, and full disks."""

import os
import signal
import threading

import pytest

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.folder import find_holder
from lmsys_ensemble.journal.journal import Journal
from tests.journal.journal_writer import FINGERPRINTS, chunks_in, commit
from tests.journal.processes import PATIENCE, posix, run, started


def test_a_directory_with_somebody_elses_files_is_refused_and_not_touched(folder):
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("ten years of work")
    with pytest.raises(
        JournalError, match=r"not empty and no run directory: it holds thesis.tex and no journal.sqlite"
    ):
        Journal.open(folder, FINGERPRINTS)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_directory(folder):
    folder.parent.mkdir()
    folder.write_text("a file")
    with pytest.raises(JournalError, match="is a file, expected the directory of a run"):
        Journal.open(folder, FINGERPRINTS)
    assert folder.read_text() == "a file"


@pytest.mark.parametrize(
    "left", [[], ["run.lock"], ["run.lock", ".holder.json.x7f"], ["run.lock", "holder.json", "journal.sqlite"]]
)
def test_what_a_process_leaves_that_was_killed_while_it_made_the_directory_is_taken_over(folder, left):
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).touch()
    with Journal.open(folder, FINGERPRINTS) as journal:
        commit(journal, 0)
        assert chunks_in(journal.finished("one"), 1) == [0]


HOLDER = """
import sys
from tests.journal.journal_writer import FINGERPRINTS, Journal, commit
with Journal.open(sys.argv[1], FINGERPRINTS) as journal:
    commit(journal, 0)
    print("open", flush=True)
    sys.stdin.readline()
"""


@posix
def test_a_second_process_is_refused_and_told_who_is_there_until_the_first_dies(folder):
    with started(HOLDER, folder) as process:
        assert process.stdout.readline() == "open\n"
        assert find_holder(folder) == process.pid
        with pytest.raises(JournalError, match=rf"night is in use by process {process.pid}\. Wait until it ends"):
            Journal.open(folder, FINGERPRINTS)
        assert find_holder(folder) == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    assert find_holder(folder) is None
    with Journal.open(folder, FINGERPRINTS) as journal:
        assert find_holder(folder) == os.getpid()
        assert chunks_in(journal.finished("one"), 2) == [0]


def test_a_second_journal_in_one_process_is_refused_too(folder):
    with (
        Journal.open(folder, FINGERPRINTS),
        pytest.raises(JournalError, match=f"in use by process {os.getpid()}"),
    ):
        Journal.open(folder, FINGERPRINTS)
    Journal.open(folder, FINGERPRINTS).close()


def test_a_journal_closed_in_another_thread_lets_others_in(folder):
    journal = Journal.open(folder, FINGERPRINTS)
    thread = threading.Thread(target=journal.close)
    thread.start()
    thread.join(PATIENCE)
    Journal.open(folder, FINGERPRINTS).close()


FULL_DISK = """
import resource, signal, sys
from lmsys_ensemble.errors import JournalError
from tests.journal.journal_writer import FINGERPRINTS, Journal, chunks_in, commit

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
with Journal.open(sys.argv[1], FINGERPRINTS) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
    for chunk in range(1_000):
        try:
            commit(journal, chunk)
        except JournalError as error:
            print(chunk, error, flush=True)
            break
    assert chunks_in(journal.finished("one"), chunk + 1) == list(range(chunk))
    try:
        journal.write_summary({"text": "x" * 400_000})
    except JournalError as error:
        print(error, flush=True)
    if sys.argv[2] == "freed":
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        commit(journal, chunk)
"""


@posix
@pytest.mark.parametrize("later", ["freed", "full"])
def test_on_a_full_disk_the_error_says_how_to_go_on_and_finished_chunks_stay(folder, later):
    code, output = run(FULL_DISK, folder, later)
    assert code == 0
    first, second = output.splitlines()
    n_chunks, message = first.split(" ", 1)
    n_chunks = int(n_chunks)
    assert n_chunks > 5
    for text in (message, second):
        assert text.startswith(f"{folder} cannot be written, its disk or quota is probably full (")
        assert "finished before are kept; free some space and start the same run again" in text
    assert not (folder / "summary.json").exists()
    with Journal.open(folder, FINGERPRINTS) as journal:
        expected = list(range(n_chunks + (later == "freed")))
        assert chunks_in(journal.finished("one"), n_chunks + 2) == expected
        commit(journal, len(expected))
        assert chunks_in(journal.finished("one"), n_chunks + 2) == [*expected, len(expected)]


NO_ROOM = """
import resource, signal, sys
from lmsys_ensemble.errors import JournalError
from tests.journal.journal_writer import FINGERPRINTS, Journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for allowed in (0, 1_000, 5_000, 10_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, most))
    try:
        Journal.open(sys.argv[1], FINGERPRINTS).close()
    except JournalError as error:
        print(error, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
Journal.open(sys.argv[1], FINGERPRINTS).close()
"""


@posix
def test_a_disk_that_is_full_from_the_start_leaves_a_directory_that_can_be_used_later(folder):
    code, output = run(NO_ROOM, folder)
    assert code == 0
    assert len(output.splitlines()) == 4
    assert all("its disk or quota is probably full" in line for line in output.splitlines())
