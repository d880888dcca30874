"""Building of models and tokenizers by transformers: one at a time, and without its words.

``from_pretrained`` sets torch's default dtype for the whole process while it runs, so two threads that load at once
get each other's dtypes, silently; and it exchanges functions of ``torch.nn.init``. Every load in this library takes
`LOAD_LOCK`. What changes nothing but the model goes on without it: copying weights to a GPU.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging

LOAD_LOCK = threading.RLock()
"""Held by whoever builds a model or a tokenizer."""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' load reports and bars; what they say is checked here and raised as errors.

    The bar of GGUF conversion is tqdm's own and heeds no setting, so that for the time it is one that does.
    """
    verbosity = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    loud = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = transformers_logging.tqdm
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = loud
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
