"""REST keeps what its document says, under random input and random walks; `make fuzz` looks further."""

import pytest

from fuzz.rules import UNREACHED
from fuzz.runner import Bound, Report, fuzz
from fuzz.targets import in_process, live

SEED = 20261125
OVER_ALL = Bound(examples=3, walks=4, steps=12)
OVER_A_SOCKET = Bound(walks=3, steps=12, phases=("examples", "stateful"))


def require_clean(report: Report, most_unreached: set[str] = UNREACHED) -> None:
    assert not report.findings, report.text()
    assert report.never_accepted() <= most_unreached, "the run saw nothing behind these"


@pytest.mark.timeout(600)
def test_a_plane_in_process_keeps_its_document(database_url: str) -> None:
    """Examples, every bound of the schemas, random input both valid and invalid, and walks along the links."""
    with in_process(database_url) as target:
        require_clean(fuzz(target, SEED, OVER_ALL))


@pytest.mark.timeout(600)
def test_a_live_installation_keeps_its_document(database_url: str) -> None:
    """The same over a socket, with Ray, where agents really run."""
    with live(database_url) as target:
        require_clean(fuzz(target, SEED, OVER_A_SOCKET))
