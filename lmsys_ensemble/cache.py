"""Where what is fetched or computed once is kept."""

import os
from pathlib import Path

CACHE_VARIABLE = "LMSYS_ENSEMBLE_CACHE"
"""Environment variable that names the folder."""


def cache_folder() -> Path:
    """Return the folder of converted models, hidden states and hashes.

    It is ``$LMSYS_ENSEMBLE_CACHE``, or one in the user's cache directory.
    """
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lmsys_ensemble"
