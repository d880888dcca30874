"""What all tests share: a few battles of many shapes, and the way to the preference data where it is there."""

import gc
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: a core each, for what a test starts as well
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import settings

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.schema import TEXT_COLUMNS
from tests.commandline import folder
from tests.tiny import checkpoints

__all__ = ["checkpoints", "folder"]

# No deadline: how long an example takes is the machine's business. Derandomised: a failure is there for everybody.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("repeatable")


def pytest_collection_finish():
    """What has been imported stays: without this, every full collection of garbage looks at all of PyTorch again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def battles_table() -> pd.DataFrame:
    """Five battles as the competition states them: JSON lists, two turns, a null turn, ids that need 64 bits."""
    return pd.DataFrame(
        {
            "id": [30_192, 4_294_967_299, 53_567, 65_089, 7],
            "prompt": [
                '["Is it morally right to water plants at night?"]',
                '["What is 2 + 2?", "And times three?"]',
                '["Gr\\u00fc\\u00dfe! Wie sp\\u00e4t ist es?"]',
                '["Print null.", null]',
                '["\\ud83c\\udf4d or \\ud83c\\udf4e?"]',
            ],
            "response_a": ['["Yes."]', '["4", "12"]', '["Kurz nach drei."]', '["null", "again"]', '["\\ud83c\\udf4d"]'],
            "response_b": ['["It depends on the plant."]', '["Four.", null]', '["?"]', '["", "null"]', '[""]'],
        }
    )


@pytest.fixture
def labelled_table(battles_table) -> pd.DataFrame:
    """The same battles with hard labels."""
    return battles_table.assign(
        winner_model_a=[1.0, 1, 0, 0, 0], winner_model_b=[0.0, 0, 1, 0, 0], winner_tie=[0.0, 0, 0, 1, 1]
    )


@pytest.fixture
def make_battles():
    """Return a function that makes battles of one turn out of (prompt, response A, response B)."""

    def make(*rows: tuple[str, str, str]) -> Battles:
        prompts, responses_a, responses_b = ([(row[field],) for row in rows] for field in range(3))
        return Battles(pd.RangeIndex(len(rows)), prompts, responses_a, responses_b)

    return make


@pytest.fixture(scope="session")
def excerpt(tmp_path_factory) -> Path:
    """Return a folder with the six shortest battles of the examples and their sample submission.

    For what must run with the bundled models from end to end; all battles go through them in the quickstart notebook.
    """
    folder = tmp_path_factory.mktemp("excerpt")
    examples = Path(__file__).parents[1] / "examples" / "data"
    table = pd.read_csv(examples / "battles.csv", dtype=str, keep_default_na=False)
    lengths = table[list(TEXT_COLUMNS)].map(len).sum(axis=1)
    kept = lengths.nsmallest(6).index.sort_values()
    table.loc[kept].to_csv(folder / "battles.csv", index=False)
    sample = pd.read_csv(examples / "sample_submission.csv", dtype=str)
    sample[sample["id"].isin(table.loc[kept, "id"])].to_csv(folder / "sample_submission.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of the preference data, which is not part of the repository."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set LMSYS_ENSEMBLE_DATA to the folder of the preference data")
    return folder
