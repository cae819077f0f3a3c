"""Connections that are slow, silent, endless, many, or greedy: each is bounded, and others go on."""

import asyncio
import time

import pytest

from controlplane.api import guarding
from tests.end_to_end.agents import channel
from tests.hostile.conftest import ANSWER_S_MAX, HEAD_S_MAX, Attacked
from tests.hostile.peers import AGENTS, connect, connected, crowd, head

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
STREAM = "/v1/channels/default/wired/stream"
GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def test_a_head_that_comes_slowly_is_not_waited_for(attacked: Attacked) -> None:
    """A thousand who send a byte now and then are let go after `head_s_max`, together; others notice nothing.

    Half of them begin as if they wanted a WebSocket.
    """
    begun = [b"GET /healthz HTTP/1.1\r\nX: ", f"GET {STREAM} HTTP/1.1\r\nUpgrade: websocket\r\nX: ".encode()]
    with attacked.bystander():
        async with crowd(attacked.url, 1000) as peers:
            began = time.monotonic()
            await asyncio.gather(*(peer.say(begun[n % 2]) for n, peer in enumerate(peers)))
            ending = [asyncio.ensure_future(peer.ended(60)) for peer in peers]
            while not all(it.done() for it in ending):
                await asyncio.gather(*(peer.say(b"P") for peer in peers))
                await asyncio.sleep(0.5)
            assert all(it.result() for it in ending)
            assert time.monotonic() - began >= HEAD_S_MAX - 1


@pytest.mark.parametrize(
    "said",
    [
        b"GET /v1/agents?" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /" + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(20_000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\n" + b"a" * 1_000_000,
    ],
    ids=["query", "path", "headers", "header", "name"],
)
async def test_heads_without_end(attacked: Attacked, said: bytes) -> None:
    """More than 64 KiB of request line and headers are HEAD_TOO_LARGE, and the end of the connection."""
    async with connected(attacked.url) as peer:
        await peer.say(said)
        assert (await peer.problem()).reason == "HEAD_TOO_LARGE"
        assert await peer.ended()


@pytest.mark.parametrize("path", ["/v1/resources/propose", "/mcp", AGENTS, "/v1/feedback", STREAM, "/nowhere"])
@pytest.mark.parametrize("said", [b"0\r\nX: ", b"1;x="], ids=["trailer", "extension"])
async def test_what_stands_beside_chunks_without_end(attacked: Attacked, path: str, said: bytes) -> None:
    """A trailer, or an extension of a chunk, of more than 64 KiB ends the connection, whatever is asked for."""
    attacked.stack.apply(channel("wired"))
    method = "GET" if path in ("/v1/feedback", STREAM) else "POST"
    asked = head(attacked.tokens["attacker"], path, method, Transfer_Encoding="chunked", Accept="text/event-stream")
    async with connected(attacked.url) as peer:
        await peer.say(asked + said)
        for _ in range(64):
            await peer.say(b"a" * 16_384)
        assert await peer.ended()


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELO there\r\n\r\n",
        b"GET / HTTP/1.1\nHost 127.0.0.1\n\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\x00b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=repr,
)
async def test_what_is_not_http(attacked: Attacked, said: bytes) -> None:
    """A Problem, whatever it was; and the connection ends."""
    async with connected(attacked.url) as peer:
        await peer.say(said)
        found = await peer.problem()
        assert found.reason in ("MALFORMED_HTTP", "UNAUTHENTICATED", "FOREIGN_HOST")


async def test_pipelined_requests_are_answered_in_order_and_bounded(attacked: Attacked) -> None:
    """A few that are sent at once are answered; a flood of them ends its connection."""
    async with connected(attacked.url) as peer:
        await peer.say(GET * 10)
        assert [await peer.answer() for _ in range(10)] == [(200, b'{"alive":true}')] * 10
    before = attacked.uss()
    with attacked.bystander():
        async with crowd(attacked.url, 100) as peers:
            await asyncio.gather(*(peer.say(GET * 6000) for peer in peers))
            assert all(await asyncio.gather(*(peer.ended() for peer in peers)))
    assert attacked.settled(lambda: attacked.uss() - before, 32 * MIB) < 32 * MIB


async def test_answers_that_nobody_takes(attacked: Attacked) -> None:
    """Two hundred who ask for large answers and read nothing are let go after `answer_s_max`; little is held."""
    before, files, most = attacked.uss(), attacked.files(), 0
    asking = head(attacked.tokens["attacker"], "/openapi.json", "GET", Content_Type=None)
    with attacked.bystander():
        async with crowd(attacked.url, 200, receive_bytes=4096) as peers:
            for _ in range(8):
                await asyncio.gather(*(peer.say(asking) for peer in peers))
            assert attacked.files() > files + 50  # some of them went at once, for what all of them together hold
            until = time.monotonic() + ANSWER_S_MAX + 30
            while attacked.files() > files + 10 and time.monotonic() < until:
                most = max(most, attacked.uss())
                await asyncio.sleep(0.2)
            assert attacked.files() <= files + 10
    assert most - before < 96 * MIB


async def test_idle_connections_keep_nobody_out(attacked: Attacked) -> None:
    """With more connections than there are places, those that never asked anything go first."""
    before = attacked.uss()
    with attacked.bystander():
        async with crowd(attacked.url, guarding.CONNECTIONS_MAX + 200) as peers:
            assert attacked.uss() - before < 200 * MIB
            assert await peers[0].ended(10)
            async with connected(attacked.url) as late:
                await late.say(GET)
                assert (await late.answer())[0] == 200
    assert attacked.settled(lambda: attacked.uss() - before, 64 * MIB) < 64 * MIB


@pytest.mark.parametrize("path", ["/v1/feedback", STREAM])
async def test_who_hangs_up_behind_a_pipelined_request_leaves_nothing(attacked: Attacked, path: str) -> None:
    """A stream that has another request queued behind it ends with its connection."""
    attacked.stack.apply(channel("wired"))
    token = attacked.tokens["attacker"]
    stream = head(token, path, "GET", Accept="text/event-stream", Content_Type=None)
    for _ in range(20):
        peer = await connect(attacked.url)
        await peer.say(stream)
        await peer.say(GET)
        await peer.close()
    attacked.calm()
