"""Checks on pretended GPUs are collected only in the processes that `test_gpu_path.py` starts."""

import os

collect_ignore = [] if "LMSYS_ENSEMBLE_PRETENDED_GUARD" in os.environ else ["pretended"]
