"""Readers by the thousand, and watchers who never read: bounded places, bounded memory, nothing lost."""

import asyncio

import pytest

from tests.hostile.conftest import Attacked
from tests.hostile.peers import connected, crowd, head

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
READERS = 2000
READER_BYTES_MAX = 100_000
EVENTS = 1000
STREAM = {"Accept": "text/event-stream", "Content_Type": None}


def stream(token: str, cursor: str) -> bytes:
    return head(token, f"/v1/feedback?after={cursor}", "GET", **STREAM)


def now(attacked: Attacked) -> str:
    """The cursor behind everything that happened until now."""
    return str(attacked.stack.call("system.brief")["cursor"])


async def test_one_token_does_not_take_all_places(attacked: Attacked) -> None:
    """Four fifths are the share of one principal; the next is told to wait, and others still find a place."""
    cursor = now(attacked)
    async with crowd(attacked.url, 2048) as peers:
        await asyncio.gather(*(peer.say(stream(attacked.tokens["attacker"], cursor)) for peer in peers))
        for peer in peers:
            assert await peer.status() == 200
        async with connected(attacked.url) as one, connected(attacked.url) as other:
            await one.say(stream(attacked.tokens["attacker"], cursor))
            found = await one.problem()
            assert (found.reason, found.metadata["limit"]) == ("QUOTA", "readers_max")
            assert found.retry_after_s
            await other.say(stream(attacked.tokens["accomplice"], cursor))
            assert await other.status() == 200
