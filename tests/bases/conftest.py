"""What tests of base models share with those of models."""

from tests.modeling.conftest import folder

__all__ = ["folder"]
