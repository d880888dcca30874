"""Fixtures of runs: what hosts scorers is tested by itself, and by runs that it carries."""

from tests.runtime.conftest import gpu, log, no_thread_is_left, small_chunks, table

__all__ = ["gpu", "log", "no_thread_is_left", "small_chunks", "table"]
