"""REST keeps what its document says, under random input and random walks; `make fuzz` looks further."""

from dataclasses import replace

import pytest

from controlplane.resources.catalogue import OPERATIONS
from fuzz.runner import Bound, Report, fuzz
from fuzz.targets import in_process, live
from tests.conftest import SOAK

SEED = 20261125
UNREACHED_MAX = 3  # what a walk has just deleted, the next call may not find
OVER_ALL = Bound(examples=2, walks=2, lives=5, steps=14)
WITHOUT_BOUNDS = replace(OVER_ALL, examples=1, phases=("examples", "fuzzing", "stateful"))
OVER_A_SOCKET = Bound(examples=1, walks=2, lives=2, steps=14, phases=("examples", "fuzzing", "stateful"))


def require_clean(report: Report) -> None:
    """Nothing was found, and not for want of looking: every operation was called, nearly all with success."""
    assert not report.findings, report.text()
    assert {*report.accepted, *report.refused} == {*OPERATIONS, "call_any"}
    assert len(report.never_accepted()) <= UNREACHED_MAX, report.never_accepted()


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
