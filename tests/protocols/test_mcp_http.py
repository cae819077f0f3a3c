"""What the MCP client may read of answers over HTTP: nothing of a redirect, and without a bound only events."""

import asyncio

import httpx2
import pytest

from controlplane.protocols.mcp_http import FLIGHT, Checked, Flight
from tests.gate.counting import Counting, counting

pytestmark = pytest.mark.anyio


async def _read(far: Counting, method: str) -> bytes:
    """The whole body, within a bound of 1,000 bytes."""
    transport = Checked("far", "default", {}, allow_private=True, connect_s=5, bytes_max=1000)
    async with asyncio.timeout(20), httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        return (await client.request(method, far.endpoint)).content


async def test_the_body_of_a_redirect_is_not_read() -> None:
    async with counting() as far:
        far.behave, far.status, far.extra = ["endless"], 307, "Location: /x\r\n"
        assert await _read(far, "POST") == b""


@pytest.mark.parametrize(("method", "status"), [("DELETE", 200), ("POST", 400)])
async def test_what_calls_itself_events_is_bounded_where_it_is_read_whole(method: str, status: int) -> None:
    async with counting() as far:
        far.status, far.kind, far.reply = status, "text/event-stream", b"x" * 2000
        with pytest.raises(httpx2.StreamError):
            await _read(far, method)
        far.status = 200
        assert len(await _read(far, "POST")) == 2000, "events are bounded each, by who reads them"


async def test_a_call_is_taken_by_what_was_posted_alone() -> None:
    """A stream that can not be taken up again says nothing of whether the call was done."""
    flight = Flight()
    token = FLIGHT.set(flight)
    try:
        async with counting() as far:
            await _read(far, "POST")
            far.status = 404
            await _read(far, "GET")
    finally:
        FLIGHT.reset(token)
    assert (flight.taken, flight.status, flight.odd) == (True, 200, False)
