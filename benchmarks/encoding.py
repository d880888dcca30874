"""Time from a table of battles to token ids: parsing and encoding of the reference load's 25,000 rows.

    python benchmarks/encoding.py [--rows 25000] [--max-tokens 2048] [--model bundled:gemma-3-270m]

Rows are drawn from the preference data in $LMSYS_ENSEMBLE_DATA (default ../shared/data), with several conversations
joined until their mean length is about that of the competition (1,000 tokens).
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tokenizers

from lmsys_ensemble import parse_battles
from lmsys_ensemble.bases.sources import resolve_base
from lmsys_ensemble.encoding.truncation import POLICIES
from lmsys_ensemble.hosting.slots import usable_cores
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.tokenization import make_encoder

FILES = ("gpt4_preferences.parquet", "hh_multi_turn.parquet", "pandalm_human.parquet")


def draw_rows(folder: Path, n_rows: int) -> pd.DataFrame:
    """Return a table in the competition's schema; every row joins the turns of two rows of the data."""
    data = pd.concat([pd.read_parquet(folder / name) for name in FILES], ignore_index=True)
    generator = np.random.default_rng(0)
    one, two = generator.integers(0, len(data), (2, n_rows))
    columns = {}
    for name in ("prompt", "response_a", "response_b"):
        cells = data[name].to_numpy(dtype=object)
        columns[name] = [json.dumps(json.loads(cells[i]) + json.loads(cells[j])) for i, j in zip(one, two, strict=True)]
    return pd.DataFrame({"id": np.arange(n_rows), **columns})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--model", default="bundled:gemma-3-270m")
    options = parser.parse_args()
    folder = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / FILES[0]).is_file():
        print(f"skipped: no preference data in {folder}; set LMSYS_ENSEMBLE_DATA")
        return 0
    table = draw_rows(folder, options.rows)
    base = resolve_base(options.model)
    print(f"{options.rows} rows, {options.model}, at most {options.max_tokens} tokens, {len(usable_cores())} cores")
    print(f"python {platform.python_version()}, tokenizers {tokenizers.__version__}, pandas {pd.__version__}")
    start = time.perf_counter()
    battles = parse_battles(table)
    print(f"parse      {time.perf_counter() - start:6.1f} s")
    for truncation in POLICIES:
        values = {
            "base_model": {"name": options.model},
            "template": {"name": "turns"},
            "max_tokens": options.max_tokens,
            "truncation": truncation,
        }
        encoder = make_encoder(base, Recipe.model_validate(values))
        start = time.perf_counter()
        encoded = encoder.encode(battles)
        seconds = time.perf_counter() - start
        n_tokens = int(encoded.lengths.sum())
        print(
            f"{truncation:10} {seconds:6.1f} s  {n_tokens / seconds:12,.0f} tokens/s  "
            f"mean {encoded.lengths.mean():6.0f} tokens  {encoded.retention['truncated'].mean():.1%} of rows cut"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
