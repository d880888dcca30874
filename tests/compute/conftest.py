"""What tests of packed batches share with those of models."""

from tests.modeling.conftest import models

__all__ = ["models"]
