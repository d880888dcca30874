import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.training.fold_places import holds_nothing_yet
from lmsys_ensemble.training.locks import in_turn, reserved

ROOT = Path(__file__).parents[2]

HOLD = """
import sys
from pathlib import Path
from lmsys_ensemble.training.fold_places import holds_nothing_yet
from lmsys_ensemble.training.locks import reserved

with reserved(Path(sys.argv[1]), [int(sys.argv[2])]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(folder, fold):
    """Let another process hold a fold, until it is killed at the end of the block."""
    command = [sys.executable, "-c", HOLD, str(folder), str(fold)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield
        finally:
            process.kill()


def test_a_fold_is_kept_from_other_processes_until_its_own_ends_however_that_ends(tmp_path):
    folder = tmp_path / "folds"
    with held_elsewhere(folder, 2):
        assert holds_nothing_yet(folder)
        with reserved(folder, [1, 3]), in_turn(folder):
            pass
        words = r"fold 2 in .*folds is being trained by another process\. Wait until"
        with pytest.raises(ConfigError, match=words), reserved(folder, [1, 2]):
            pytest.fail("reserved what another process holds")
    with reserved(folder, [1, 2]):
        pass
