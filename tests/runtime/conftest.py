"""What all tests of the runtime rest on: the watch on threads, as every host installs it."""

import pytest

from ray_runtime import stepping


@pytest.fixture(scope="session", autouse=True)
def _watched_steps() -> None:
    """Steps are watched in this process as they are in a host."""
    stepping.install()
