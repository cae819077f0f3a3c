"""REST and MCP keep what they say of themselves, under random input and random walks; `make fuzz` looks further."""

import pytest

from controlplane.resources.catalogue import OPERATIONS
from fuzz.mcp_runner import McpFuzz
from fuzz.mcp_wire import Wire
from fuzz.rules import SEED, UNREACHED
from fuzz.runner import Bound, Report, Target, fuzz
from fuzz.targets import in_process, live, restore
from tests.conftest import SOAK
from tests.fuzzing.test_mcp import require_clean as require_clean_mcp

OVER_ALL = Bound(examples=1, walks=1, lives=1, steps=14)
SHARE = 1.0 if SOAK else 0.33
OVER_A_SOCKET = Bound(examples=1, walks=1, lives=1, steps=14, phases=("examples", "fuzzing", "stateful"))


def has_looked(report: Report) -> bool:
    """Everything was called with success, and what was deleted looked for."""
    return report.looks > 0 and report.never_accepted() <= set(UNREACHED)


def has_revoked(report: Report) -> bool:
    """The same, and a revoked token was tried."""
    return has_looked(report) and report.revoked > 0


def require_clean(report: Report) -> None:
    """Nothing was found, and not for want of looking: all was called, with success, and what was deleted looked for."""
    assert not report.findings, report.text()
    assert {*report.accepted, *report.refused} == {*OPERATIONS, "call_any"}
    assert report.never_accepted() <= set(UNREACHED), report.never_accepted()
    assert report.looks > 0, report.text()


@pytest.mark.timeout(600)
def test_a_plane_in_process_keeps_its_document(quick_url: str) -> None:
    """Examples, the bounds of the schemas, random input both valid and invalid, and walks along the links.

    The bounds are validation's, which knows no database: the second database has them in a soak. Those of a manifest
    are the same wherever it is proposed: where all kinds are proposed, a third of them, which the seed chooses; in a
    soak all, and where one kind is proposed, too.
    """
    alike = [] if SOAK else [it.name for it in OPERATIONS.values() if it.verb == "propose" and it.noun != "resources"]
    with in_process(quick_url) as target:
        report = fuzz(target, SEED, OVER_ALL, alike=alike, share=SHARE, enough=has_revoked)
    require_clean(report)
    assert report.revoked > 0, report.text()


@pytest.mark.timeout(600)
def test_a_live_installation_keeps_its_document(postgresql_url: str) -> None:
    """Over a socket, with Ray, where agents really run: examples, random input and walks.

    The bounds of the schemas are left to the plane in process, which is on the other database.
    """
    with live(postgresql_url) as target:
        require_clean(fuzz(target, SEED, OVER_A_SOCKET, enough=has_looked))


@pytest.mark.skipif(not SOAK, reason="in a soak: the same plane stands behind the tools of the one in process")
@pytest.mark.timeout(600)
def test_every_tool_of_a_live_installation_keeps_what_it_says(sqlite_url: str) -> None:
    """Every tool of MCP, with turns to speak of; and the document, on the other database."""
    with live(sqlite_url) as target:
        require_clean(fuzz(target, SEED, OVER_A_SOCKET, enough=has_looked))
        _fuzz_tools(target)


def _fuzz_tools(target: Target) -> None:
    restore(target)
    wire = Wire(target.url, target.token)
    try:
        run = McpFuzz(wire, SEED)
        run.run(1)
        require_clean_mcp(run.finish(), turns_run=True)
    finally:
        wire.close()
