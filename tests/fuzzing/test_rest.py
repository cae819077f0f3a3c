"""REST keeps what its document says, under random input and random walks; `make fuzz` looks further."""

from dataclasses import replace

import pytest

from fuzz.rules import UNREACHED
from fuzz.runner import Bound, Report, fuzz
from fuzz.targets import in_process, live
from tests.conftest import SOAK

SEED = 20261125
OVER_ALL = Bound(examples=3, walks=4, lives=6, steps=16)
WITHOUT_BOUNDS = replace(OVER_ALL, phases=("examples", "fuzzing", "stateful"))
OVER_A_SOCKET = Bound(walks=3, lives=3, steps=16, phases=("examples", "stateful"))


def require_clean(report: Report, most_unreached: set[str] = UNREACHED) -> None:
    assert not report.findings, report.text()
    assert report.never_accepted() <= most_unreached, "the run saw nothing behind these"


@pytest.mark.timeout(600)
def test_a_plane_in_process_keeps_its_document(database_url: str) -> None:
    """Examples, every bound of the schemas, random input both valid and invalid, and walks along the links.

    The bounds are validation's, which knows no database: the second database has them in a soak.
    """
    bound = OVER_ALL if SOAK or database_url.startswith("sqlite") else WITHOUT_BOUNDS
    with in_process(database_url) as target:
        require_clean(fuzz(target, SEED, bound))


@pytest.mark.timeout(600)
def test_a_live_installation_keeps_its_document(database_url: str) -> None:
    """The same over a socket, with Ray, where agents really run."""
    with live(database_url) as target:
        require_clean(fuzz(target, SEED, OVER_A_SOCKET))
