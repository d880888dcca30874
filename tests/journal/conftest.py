"""Run directories to work in."""

import pytest

from lmsys_ensemble.journal.journal import Journal
from tests.journal.journal_writer import FINGERPRINTS, commit, rows_of


@pytest.fixture
def folder(tmp_path):
    """Return the path of a run directory that is not there yet."""
    return tmp_path / "runs" / "night"


@pytest.fixture
def ten_chunks(folder):
    """Return a run directory with ten finished chunks and a plan, closed."""
    with Journal.open(folder, FINGERPRINTS) as journal:
        journal.record_chunks([rows_of(chunk) for chunk in range(10)])
        for chunk in range(10):
            commit(journal, chunk)
    return folder
