from transformers import modeling_gguf_pytorch_utils
from transformers.utils import logging

from lmsys_ensemble.modeling.building import LOAD_LOCK, quiet_transformers


def test_transformers_is_silent_inside_and_as_it_was_afterwards():
    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), modeling_gguf_pytorch_utils.tqdm
    with quiet_transformers():
        assert logging.get_verbosity() == logging.ERROR
        assert not logging.is_progress_bar_enabled()
        assert modeling_gguf_pytorch_utils.tqdm is logging.tqdm
    after = logging.get_verbosity(), logging.is_progress_bar_enabled(), modeling_gguf_pytorch_utils.tqdm
    assert after == before


def test_a_thread_that_builds_may_build_what_that_needs():
    with LOAD_LOCK, LOAD_LOCK:
        assert LOAD_LOCK._is_owned()
