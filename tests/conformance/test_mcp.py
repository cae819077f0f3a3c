"""The official MCP conformance suite, in both protocol eras, against the plane with the suite's fixtures on top."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mcp_server.server import McpServer
from tests.api.plane import Plane
from tests.conformance.fixtures import LISTED
from tests.conformance.left import LEFT
from tests.conformance.serving import conformant
from tests.conformance.suite import REVISIONS, expected, required, run_suite

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:The sampling capability is deprecated")]


@pytest.fixture
async def plane(anyio_backend: str, sqlite_url: str) -> AsyncIterator[Plane]:
    async with conformant(sqlite_url) as found:
        yield found


@pytest.mark.parametrize("path", ["/mcp", "/mcp/full"])
@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_official_suite_passes(plane: Plane, revision: str, path: str) -> None:
    """Whatever the revision runs passes, but for what is listed with a reason; a listed one that passes is an error."""
    outcome = await run_suite(plane.url + path, revision)
    assert outcome.ran == required(revision), outcome.output
    known = expected(revision)
    assert outcome.unexpected(known) == {}, outcome.output
    assert outcome.stale(known) == set(), "these pass: take them off the list"


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_list_of_failures_only_shrinks(revision: str) -> None:
    """Each entry has a reason and a scenario that is run; what was struck is struck in `LEFT`, too, for good."""
    known = expected(revision)
    assert set(known) == LEFT[revision]
    assert all(len(reason) > 20 for reason in known.values())
    assert {key.partition(":")[0] for key in known} <= required(revision)


async def test_the_suite_is_not_blind(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that promises what it does not do is found out."""

    def promises(self: McpServer, *given: Any, **more: Any) -> Any:
        return super(McpServer, self).get_capabilities(*given, **more)

    monkeypatch.setattr(McpServer, "get_capabilities", promises)
    outcome = await run_suite(f"{plane.url}/mcp", "2026-07-28")
    found = outcome.bad["server-stateless:sep-2575-server-sends-tools-list-changed-on-subscription"]
    assert found != "SKIPPED"


def test_no_fixture_is_in_the_product() -> None:
    """What the suite asks for beside the protocol is nothing that the plane offers."""
    from mcp_server.intents import INTENT_TOOLS
    from mcp_server.tools import FULL_TOOLS

    assert {tool.name for tool in LISTED}.isdisjoint(tool.name for tool in (*INTENT_TOOLS, *FULL_TOOLS))
