"""One installation with Ray for the tests that only use it; those that break things start their own."""

from collections.abc import Iterator

import pytest

from tests.conftest import SOAK
from tests.stack import Stack


@pytest.fixture(scope="session", params=["sqlite", "postgresql"] if SOAK else ["sqlite"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """An installation on SQLite; in a soak, one on PostgreSQL too."""
    if request.param == "sqlite":
        with Stack(ray_dashboard=True, host_appear_s=10) as running:
            yield running
        return
    server = request.getfixturevalue("postgres")
    url = server.lend()
    with Stack(url) as running:
        yield running
    server.give_back(url)
