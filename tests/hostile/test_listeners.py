"""The ways in without a token, and those that stay open: hooks and sockets, attacked at the wire.

Each gets a clear refusal where an answer can be given, and an end otherwise; memory stays bounded, others go on.
"""

import asyncio
import contextlib
import os
import random
import struct
from collections.abc import Callable

import orjson
import pytest

from controlplane.api.channel_streams import SOCKETS_MAX
from controlplane.api.sockets import MESSAGE_BYTES_MAX
from schemas.calls import DATA_BYTES_MAX
from tests.conftest import SOAK
from tests.hostile.conftest import BODY_S_MAX, Attacked
from tests.hostile.peers import AGENTS, Peer, chunk, connected, crowd, head

pytestmark = pytest.mark.anyio
HOOK = "/hooks/default/anybody"
STREAM = "/v1/channels/default/wired/stream"
MIB = 1024 * 1024
SEED = int(os.environ.get("STEWARD_SEED", "20261127"))
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
}
TEXT, CONTINUED, PING, CLOSE = 1, 0, 9, 8


@pytest.fixture
def streamed(attacked: Attacked) -> Attacked:
    attacked.stack.apply({"kind": "Channel", "metadata": {"name": "wired"}, "spec": {}})
    return attacked


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, masked: bool = True, length: int | None = None) -> bytes:
    """A frame of RFC 6455, which may lie about its length, and may not be masked."""
    first = bytes([(0x80 if fin else 0) | opcode])
    size = len(data) if length is None else length
    mark = 0x80 if masked else 0
    if size < 126:
        sized = bytes([mark | size])
    elif size < 65_536:
        sized = bytes([mark | 126]) + struct.pack("!H", size)
    else:
        sized = bytes([mark | 127]) + struct.pack("!Q", size)
    return first + sized + (bytes(4) if masked else b"") + data


async def upgraded(peer: Peer, token: str) -> None:
    await peer.say(head(token, STREAM, "GET", **UPGRADE))
    assert await peer.status() == 101


# Hooks


async def test_a_body_for_a_hook_is_bounded_like_any(attacked: Attacked) -> None:
    """Whether it says how long it is or not; nobody is told whether there is such a hook."""
    with attacked.bystander(), attacked.sampled() as memory:
        async with crowd(attacked.url, 100) as peers:

            async def declared(peer: Peer) -> None:
                await peer.say(head(None, HOOK, Content_Length=DATA_BYTES_MAX + 1))
                assert (await peer.problem()).reason == "TOO_LARGE"

            async def in_chunks(peer: Peer) -> None:
                await peer.say(head(None, HOOK, Transfer_Encoding="chunked"))
                while await peer.say(chunk(bytes(65_536))):
                    pass

            await asyncio.gather(*(declared(it) for it in peers[:50]), *(in_chunks(it) for it in peers[50:70]))
        async with connected(attacked.url) as peer:
            await peer.say(head(None, HOOK, Content_Length=2), b"{}")
            assert (await peer.problem()).reason == "UNAUTHENTICATED"
    assert memory.grown() < 160 * MIB


async def test_bodies_for_hooks_that_never_end(attacked: Attacked) -> None:
    """A thousand who send a byte now and then are told DEADLINE; who goes away in the middle costs nothing for long."""
    with attacked.bystander():
        async with crowd(attacked.url, 1200) as peers:
            await asyncio.gather(*(it.say(head(None, HOOK, Content_Length=1000), b"{") for it in peers))
            slow = [asyncio.ensure_future(it.problem(60)) for it in peers[:1000]]
            for peer in peers[1000:]:
                await peer.close()
            async with asyncio.timeout(BODY_S_MAX + 30):
                while not all(it.done() for it in slow):
                    await asyncio.gather(*(it.say(b" ") for it in peers[:1000]))
                    await asyncio.sleep(0.5)
            assert {it.result().reason for it in slow} == {"DEADLINE"}


async def test_a_crowd_that_guesses_at_hooks(attacked: Attacked) -> None:
    """Unsigned, again and again: each is refused alike, and nobody else is kept from anything."""
    body = b'{"n":1}'
    signed = {"webhook_id": "w", "webhook_timestamp": "1", "webhook_signature": "v1,AAAA"}
    with attacked.bystander(), attacked.sampled() as memory:
        async with crowd(attacked.url, 100) as peers:

            async def guess(peer: Peer) -> set[str]:
                told = set()
                for n in range(20):
                    await peer.say(head(None, f"/hooks/default/c{n}", Content_Length=len(body), **signed), body)
                    told.add((await peer.problem()).reason)
                return told

            assert set().union(*await asyncio.gather(*map(guess, peers))) == {"UNAUTHENTICATED"}
    assert memory.grown("gate") < 32 * MIB


# Sockets


@pytest.mark.parametrize(
    ("given", "statuses"),
    [
        ({"Sec_WebSocket_Version": "7"}, {400, 426}),
        ({"Sec_WebSocket_Key": "short"}, {400}),
        ({"Sec_WebSocket_Key": None}, {400}),
        ({"Sec_WebSocket_Version": None}, {400, 426}),
        ({"Origin": "https://far.example"}, {403}),
        ({"Authorization": "Bearer nonsense"}, {401}),
        ({"Authorization": None}, {401}),
        ({"Host": "far.example"}, {421}),
    ],
)
async def test_an_upgrade_that_is_none(streamed: Attacked, given: dict[str, str | None], statuses: set[int]) -> None:
    """Is answered in HTTP, and the connection ends."""
    async with connected(streamed.url) as peer:
        await peer.say(head(streamed.tokens["attacker"], STREAM, "GET", **UPGRADE | given))
        assert (await peer.answer())[0] in statuses
        assert await peer.ended()


@pytest.mark.parametrize("path", ["/healthz", "/v1/agents", "/mcp", AGENTS, "/hooks/default/a", "/nowhere"])
async def test_an_upgrade_of_what_is_no_stream(streamed: Attacked, path: str) -> None:
    """Is refused, whatever is there."""
    async with connected(streamed.url) as peer:
        await peer.say(head(streamed.tokens["attacker"], path, "GET", **UPGRADE))
        assert (await peer.answer())[0] in (401, 403, 404)
        assert await peer.ended()


@pytest.mark.parametrize(
    "said",
    [
        frame(TEXT, b"{}", masked=False),
        frame(TEXT, length=2**62),
        frame(TEXT, length=MESSAGE_BYTES_MAX + 1),
        frame(CONTINUED, b"x"),
        frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"),
        frame(PING, b"x" * 126),
        frame(PING, b"x", fin=False),
        frame(3, b"x"),
        b"\xff\xff\xff\xff\xff\xff",
        frame(TEXT, b"\xff\xfe"),
        frame(CLOSE, b"\x00"),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=lambda it: repr(it[:12]),
)
async def test_what_is_no_frame_ends_its_connection(streamed: Attacked, said: bytes) -> None:
    """In the words of the protocol, where it has any; and nobody else's."""
    async with connected(streamed.url) as peer:
        await upgraded(peer, streamed.tokens["attacker"])
        await peer.say(said)
        assert await peer.ended()


async def test_an_upgrade_that_breaks_the_parser_leaves_nothing(streamed: Attacked) -> None:
    """A path that is no text, hundreds of times: no place is lost."""
    before = streamed.files()
    asked = head(streamed.tokens["attacker"], "/v1/\xff\xfe", "GET", **UPGRADE).decode().encode("latin-1")
    async with crowd(streamed.url, 200) as peers:
        await asyncio.gather(*(it.say(asked) for it in peers))
        assert all(await asyncio.gather(*(it.ended() for it in peers)))
    assert streamed.settled(streamed.files, before) <= before


async def test_messages_without_end_are_bounded(streamed: Attacked) -> None:
    """In many frames, or in many messages that are not waited for: what is kept of one connection stays small."""
    piece = frame(CONTINUED, b"x" * 65_000, fin=False)
    with streamed.bystander(), streamed.sampled() as memory:
        async with crowd(streamed.url, 60) as peers:
            await asyncio.gather(*(upgraded(it, streamed.tokens["attacker"]) for it in peers))

            async def endless(peer: Peer) -> None:
                await peer.say(frame(TEXT, b'"', fin=False))
                for _ in range(100):
                    if not await peer.say(piece):
                        return
                raise AssertionError("it took six megabytes of one message")

            async def many(peer: Peer) -> None:
                await asyncio.wait_for(peer.say(*[frame(TEXT, b"7" * 200)] * 2000), 60)

            await asyncio.gather(*map(endless, peers[:30]), *map(many, peers[30:]))
    assert memory.grown() < 96 * MIB


async def test_sockets_that_are_half_open(streamed: Attacked) -> None:
    """A thousand come: those of two tokens for whom there is a place begin a frame and say no more, which costs little
    memory; the rest is told that there is none. Others go on.
    """
    asked = {it: head(streamed.tokens[it], STREAM, "GET", **UPGRADE) for it in ("attacker", "accomplice")}
    refused: list[str] = []

    async def come(peer: Peer, token: str) -> bool:
        await peer.say(asked[token])
        status, body = await peer.answer(60)
        if status != 101:
            refused.append(orjson.loads(body)["reason"])
        return status == 101

    with streamed.bystander(), streamed.sampled() as memory:
        async with contextlib.AsyncExitStack() as crowds:
            held: list[Peer] = []
            for at in range(0, 1000, 10):  # what is asked here is what they cost while they are, not their coming
                some = await crowds.enter_async_context(crowd(streamed.url, 10))
                token = "attacker" if at < 500 else "accomplice"
                there = await asyncio.gather(*(come(it, token) for it in some))
                held += [it for it, is_there in zip(some, there, strict=True) if is_there]
            assert len(held) >= SOCKETS_MAX  # more, where some of them had ended by then
            assert refused == ["QUOTA"] * (1000 - len(held))
            assert refused
            await asyncio.gather(*(it.say(frame(TEXT, b"x" * 1000, length=200_000)) for it in held))
            await asyncio.sleep(1.0)  # while they are
    assert memory.grown() < 128 * MIB


def _random(chance: random.Random) -> bytes:
    """Bytes that begin like something."""
    good = frame(TEXT, b'{"publish":{"data":1}}')
    makes: list[Callable[[], bytes]] = [
        lambda: chance.randbytes(chance.randrange(1, 200)),
        lambda: good[: chance.randrange(1, len(good))],
        lambda: frame(chance.randrange(16), chance.randbytes(chance.randrange(200)), fin=chance.random() < 0.5),
        lambda: bytearray_flipped(good, chance),
        lambda: good,
    ]
    return b"".join(chance.choice(makes)() for _ in range(chance.randrange(1, 6)))


def bytearray_flipped(said: bytes, chance: random.Random) -> bytes:
    found = bytearray(said)
    found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


async def test_random_frames(streamed: Attacked) -> None:
    """Whatever is said after an upgrade, the plane goes on, and so does everybody else."""
    chance = random.Random(SEED)
    with streamed.bystander():
        for _ in range(40 if SOAK else 4):
            async with crowd(streamed.url, 50) as peers:
                await asyncio.gather(*(upgraded(it, streamed.tokens["attacker"]) for it in peers))
                await asyncio.gather(*(it.say(_random(chance)) for it in peers))
    async with connected(streamed.url) as peer:
        await upgraded(peer, streamed.tokens["attacker"])
        await peer.say(frame(TEXT, b'{"publish":{"data":"whole"},"ref":"mine"}'))
        seen = b""
        async with asyncio.timeout(30):
            while b'"ref":"mine"' not in seen:
                seen = seen[-1000:] + await peer.piece()
