"""A process that commits chunks of made-up results, for tests that kill it: ``python -m tests.journal.journal_writer``.

Everything follows from a chunk's number, so that whoever reads the journal can tell whether it is what was written.
"""

import hashlib
import itertools
import os
import sys
import threading

import numpy as np

from lmsys_ensemble.journal.journal import Journal

FINGERPRINTS = {"one": {"class": "tests:One", "recipe": {"max_tokens": 1024, "classes": ["a", "b", "tie"]}}}
N_ROWS = 200


def rows_of(chunk):
    """Return the row hashes of a chunk."""
    return [hashlib.blake2b(f"{chunk}/{row}".encode(), digest_size=16).hexdigest() for row in range(N_ROWS)]


def logits_of(chunk):
    """Return the logits of a chunk, NaN for its failed row."""
    logits = np.random.default_rng(chunk).standard_normal((N_ROWS, 3), dtype=np.float32)
    logits[list(errors_of(chunk))] = np.nan
    return logits


def errors_of(chunk):
    """Return the one row of a chunk that failed, and why."""
    return {chunk % N_ROWS: f"told to fail in chunk {chunk}"}


def commit(journal, chunk, scorer="one"):
    """Commit a chunk."""
    journal.commit(
        scorer, rows_of(chunk), logits_of(chunk), errors_of(chunk), device="cpu", n_tokens=100 * N_ROWS, seconds=0.5
    )


def begin_run(folder):
    """Leave a run directory with three of four planned chunks, a failed row in each, and a scorer that has none."""
    with Journal.open(folder, {**FINGERPRINTS, "two": {"seed": 2}}) as journal:
        journal.record_chunks([rows_of(chunk) for chunk in range(4)])
        for chunk in range(3):
            commit(journal, chunk)
    return folder


def put(journal, rows, values, errors=None, scorer="one"):
    """Commit rows with one value each for all three logits."""
    logits = np.repeat(np.array(values, dtype=np.float32)[:, None], 3, axis=1)
    journal.commit(scorer, rows, logits, errors or {}, device="cpu", n_tokens=0, seconds=0.1)


def chunks_in(finished, n_chunks):
    """Return which of the first chunks are finished, after making sure that they are whole and bit-identical."""
    present = []
    for chunk in range(n_chunks):
        rows = rows_of(chunk)
        positions = finished.positions(rows)
        assert (positions >= 0).all() or (positions < 0).all(), f"chunk {chunk} is there in part"
        if positions[0] < 0:
            continue
        present.append(chunk)
        assert finished.logits[positions].tobytes() == logits_of(chunk).tobytes(), f"chunk {chunk} has other logits"
        for position, reason in errors_of(chunk).items():
            assert finished.errors[rows[position]] == reason
    assert len(finished) == N_ROWS * len(present)
    assert len(finished.errors) == len(present)
    return present


def main(folder, n_chunks):
    """Commit, from two threads, every chunk that is not finished, and say so line by line."""
    with Journal.open(folder, FINGERPRINTS) as journal:
        # Far more often than SQLite would, so that kills hit the moving of the log into the file, too.
        journal._connection.execute("PRAGMA wal_autocheckpoint = 16")
        finished = journal.finished("one")
        numbers, mutex = itertools.count(), threading.Lock()

        def work():
            while True:
                with mutex:
                    chunk = next(numbers)
                if chunk >= n_chunks:
                    return
                if rows_of(chunk)[0] not in finished:
                    commit(journal, chunk)
                    os.write(1, f"{chunk}\n".encode())

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def write_to(pipe, folder, n_chunks):
    """Do the same in a process of `multiprocessing`, with a pipe for standard output."""
    os.dup2(pipe.fileno(), 1)
    main(folder, n_chunks)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
