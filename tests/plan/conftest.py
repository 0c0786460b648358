"""The rows that the tests of training use."""

from tests.train.conftest import rows

__all__ = ["rows"]
