"""The networks of the model tests."""

from tests.models.conftest import attention, images, trained

__all__ = ["attention", "images", "trained"]
