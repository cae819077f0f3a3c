"""Bodies that are too large, that lie about themselves, that never come, or that come all at once."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.hostile.conftest import BODY_S_MAX, Attacked
from tests.hostile.peers import CALL, SURFACES, Peer, chunk, connected, crowd, head

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
HUNDRED = 100_000_000
PIECE = b"a" * 65_536
BODY_BYTES_MAX = 4 * MIB
IN_FLIGHT_BYTES_MAX = 128 * MIB


async def hundred_megabytes(peer: Peer, first: bytes, *, chunked: bool) -> int:
    """Send them with one eye on the answer; how many were taken."""
    await peer.say(first)
    piece, sent = (chunk(PIECE) if chunked else PIECE), 0
    while sent < HUNDRED and await peer.say(piece):
        sent += len(PIECE)
    if chunked:
        await peer.say(b"0\r\n\r\n")
    return sent


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_hundred_megabytes_are_refused_and_not_held(attacked: Attacked, path: str, chunked: bool) -> None:
    """TOO_LARGE comes while the body does; what still comes is dropped, and the connection serves on or ends."""
    size: dict[str, Any] = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": HUNDRED}
    with attacked.sampled() as held:
        await _refused(attacked, path, size, chunked=chunked)
    assert held.grown() < 24 * MIB
    assert held.grown("gate") < 8 * MIB


async def _refused(attacked: Attacked, path: str, size: dict[str, Any], *, chunked: bool) -> None:
    async with connected(attacked.url) as peer:
        sending = asyncio.ensure_future(
            hundred_megabytes(peer, head(attacked.tokens["attacker"], path, **size), chunked=chunked)
        )
        assert (await peer.problem()).reason == "TOO_LARGE"
        await sending


async def test_fifty_times_a_hundred_megabytes_at_once(attacked: Attacked) -> None:
    """All are refused, the memory stays where it was, and a bystander notices little."""
    first = head(attacked.tokens["attacker"], CALL, Content_Length=HUNDRED)
    with attacked.bystander(), attacked.sampled() as held:
        async with crowd(attacked.url, 50) as peers:
            sending = [asyncio.ensure_future(hundred_megabytes(peer, first, chunked=False)) for peer in peers]
            for peer in peers:
                assert (await peer.problem(60)).reason == "TOO_LARGE"
            await asyncio.gather(*sending)
    assert held.grown() < 64 * MIB
    assert held.grown("gate") < 16 * MIB


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        (["-1"], "MALFORMED_HTTP"),
        (["1", "2"], "MALFORMED_HTTP"),
        (["0x10"], "MALFORMED_HTTP"),
        (["9" * 40], "MALFORMED_HTTP"),
        (["1e3"], "MALFORMED_HTTP"),
        (["9" * 18], "TOO_LARGE"),
        (["100000000"], "TOO_LARGE"),
    ],
    ids=str,
)
async def test_lengths_that_lie(attacked: Attacked, lengths: list[str], reason: str) -> None:
    """Negative, doubled, huge, or no number: refused before a byte of the body is waited for."""
    lines = "".join(f"Content-Length: {it}\r\n" for it in lengths)
    first = head(attacked.tokens["attacker"])[:-2] + lines.encode() + b"\r\n"
    async with connected(attacked.url) as peer:
        await peer.say(first)
        assert (await peer.problem()).reason == reason


async def test_a_length_with_chunks_beside_it(attacked: Attacked) -> None:
    """Two ways to say where a body ends are one too many: nothing is smuggled behind it."""
    first = head(attacked.tokens["attacker"], Content_Length=5, Transfer_Encoding="chunked")
    async with connected(attacked.url) as peer:
        await peer.say(first, b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await peer.problem()).reason == "MALFORMED_HTTP"
        assert await peer.ended()


async def test_more_than_the_length_says(attacked: Attacked) -> None:
    """What follows the body is the next request, or no HTTP; it is never part of the body."""
    body = b'{"query": "a"}'
    async with connected(attacked.url) as peer:
        await peer.say(head(attacked.tokens["attacker"], Content_Length=len(body)) + body + b"garbage\r\n\r\n")
        status, answer = await peer.answer()
        assert status in (0, 200, 400)  # what is no HTTP may be seen before the request before it is answered
        assert status != 200 or "operations" in orjson.loads(answer) or orjson.loads(answer)
        assert await peer.ended()


async def test_expecting_to_be_told_to_go_on(attacked: Attacked) -> None:
    """`Expect: 100-continue` with a body that is too large gets its refusal and no invitation."""
    async with connected(attacked.url) as peer:
        await peer.say(head(attacked.tokens["attacker"], Content_Length=HUNDRED, Expect="100-continue"))
        assert (await peer.problem()).reason == "TOO_LARGE"
    async with connected(attacked.url) as peer:
        await peer.say(head(None, Content_Length=10, Expect="100-continue"))
        assert (await peer.problem()).reason == "UNAUTHENTICATED"


async def test_bodies_that_never_come(attacked: Attacked) -> None:
    """A thousand who announce a body and send nothing hold next to nothing."""
    before = attacked.uss()
    with attacked.bystander():
        async with crowd(attacked.url, 1000) as peers:
            first = head(attacked.tokens["attacker"], Content_Length=BODY_BYTES_MAX)
            await asyncio.gather(*(peer.say(first) for peer in peers))
            await asyncio.sleep(1)  # time in which they might be given memory
            assert attacked.uss() - before < 64 * MIB


async def test_a_thousand_slow_bodies_hold_no_more_than_the_limit(attacked: Attacked) -> None:
    """Of 3.9 MB each only the share of the sender is held at once; the rest is told to come again, others go on."""
    before = attacked.uss()
    first = head(attacked.tokens["attacker"], Content_Length=3_900_000)
    told: list[str] = []

    async def slowly(peer: Peer) -> None:
        asking = asyncio.ensure_future(peer.problem(120))
        await peer.say(first)
        for _ in range(8):
            if asking.done() or not await peer.say(PIECE):
                break
            await asyncio.sleep(0.2)
        await asyncio.wait([asking], timeout=8)
        if asking.done() and not asking.cancelled() and asking.exception() is None:
            told.append(asking.result().reason)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    with attacked.bystander(), attacked.sampled() as held:
        async with crowd(attacked.url, 1000) as peers:
            await asyncio.gather(*(slowly(peer) for peer in peers))
    assert set(told) <= {"QUOTA", "DEADLINE"}
    assert told.count("QUOTA") > 500
    assert held.grown("gate") < 16 * MIB
    assert held.grown() < 4 * IN_FLIGHT_BYTES_MAX  # a read of 256 KiB a connection comes on top
    assert attacked.settled(lambda: attacked.uss() - before, 64 * MIB) < 64 * MIB


async def test_bodies_that_drip(attacked: Attacked) -> None:
    """A byte now and then is not enough: after `body_s_max` it is over, and others notice nothing."""
    first = head(attacked.tokens["attacker"], Content_Length=1000)

    async def drip(peer: Peer) -> str:
        await peer.say(first)
        asking = asyncio.ensure_future(peer.problem(4 * BODY_S_MAX))
        while not (await asyncio.wait([asking], timeout=0.5))[0] and await peer.say(b" "):
            pass
        return (await asking).reason

    with attacked.bystander():
        async with crowd(attacked.url, 100) as peers:
            assert set(await asyncio.gather(*(drip(peer) for peer in peers))) == {"DEADLINE"}


CODINGS = ("gzip", "deflate", "br", "zstd", "gzip, gzip", "x" * 5000)


@pytest.mark.parametrize(
    ("path", "coding"), [(SURFACES[n % len(SURFACES)], coding) for n, coding in enumerate(CODINGS)]
)
async def test_compressed_bodies_are_not_unpacked(attacked: Attacked, path: str, coding: str) -> None:
    """Whatever they would unfold to: a body is taken as it is, or not at all."""
    import gzip

    bomb = gzip.compress(b"0" * 3_000_000)
    async with connected(attacked.url) as peer:
        first = head(attacked.tokens["attacker"], path, Content_Length=len(bomb), Content_Encoding=coding)
        await peer.say(first + bomb)
        assert (await peer.problem()).reason == "UNSUPPORTED_MEDIA_TYPE"
