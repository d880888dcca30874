import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.tiny import DECODERS, make_config


def make_model(architecture, **changes):
    torch.manual_seed(DECODERS.index(architecture))
    config = make_config(architecture, num_labels=3, **changes)
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def models():
    return {architecture: make_model(architecture) for architecture in DECODERS}
