"""Readers by the thousand, and watchers who never read: bounded places, bounded memory, nothing lost."""

import asyncio
from collections.abc import Callable

import httpx
import orjson
import pytest

from tests.end_to_end.agents import agent, channel
from tests.hostile.bystander import MCP, META, tool_call
from tests.hostile.conftest import ANSWER_S_MAX, UNSENT_BYTES_MAX, Attacked
from tests.hostile.peers import AGENTS, Peer, connected, crowd, head

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
READERS = 2000
READER_BYTES_MAX = 100_000
EVENTS = 400
STREAM = {"Accept": "text/event-stream", "Content_Type": None}


async def until(true: Callable[[], bool], seconds_max: float = 90) -> None:
    """Wait for what must become true."""
    async with asyncio.timeout(seconds_max):
        while not true():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.2)


def stream(token: str, cursor: str) -> bytes:
    return head(token, f"/v1/feedback?after={cursor}", "GET", **STREAM)


def now(attacked: Attacked) -> str:
    """The cursor behind everything that happened until now."""
    return str(attacked.stack.call("system.brief")["cursor"])


async def happen(attacked: Attacked, count: int) -> None:
    """So many events: an agent joins channels and leaves them."""
    names = [f"noise-{n}" for n in range(40)]
    attacked.stack.apply(*(channel(name) for name in names))
    headers = {"Authorization": f"Bearer {attacked.tokens['accomplice']}"}
    async with httpx.AsyncClient(base_url=attacked.url, headers=headers, timeout=60) as client:

        async def turn(name: str) -> None:
            for n in range(count // len(names)):
                act = "leave" if n % 2 else "join"
                answer = await client.post(f"/v1/operations/channels.{act}/call", json={"name": name, "agent": "echo"})
                assert answer.status_code == 200, answer.text

        await asyncio.gather(*(turn(name) for name in names))


class Follower:
    """Counts the events of a stream, and remembers them if wanted."""

    def __init__(self, peer: Peer, *, remembering: bool) -> None:
        self._peer = peer
        self._rest = b""
        self.count = 0
        self.cursors: list[str] | None = [] if remembering else None

    async def follow(self) -> None:
        while piece := await self._peer.piece():
            whole, _, self._rest = (self._rest + piece).rpartition(b"\n")
            self.count += whole.count(b'"type":"channel.')
            if self.cursors is not None:
                lines = (it for it in whole.split(b"\n") if it.startswith(b"data: ") and b'"type":"channel.' in it)
                self.cursors += [orjson.loads(it[6:])["cursor"] for it in lines]


async def test_two_thousand_readers(attacked: Attacked) -> None:
    """Idle ones cost little memory and less time; events reach every one of them, in order, once."""
    token, cursor = attacked.tokens["attacker"], now(attacked)
    before = attacked.uss()
    with attacked.bystander():
        async with crowd(attacked.url, READERS) as peers:
            await asyncio.gather(*(peer.say(stream(token, cursor)) for peer in peers))
            for peer in peers:
                assert await peer.status() == 200
            each = (attacked.uss() - before) / READERS
            assert each < READER_BYTES_MAX
            followers = [Follower(peer, remembering=n % 100 == 0) for n, peer in enumerate(peers)]
            following = [asyncio.ensure_future(it.follow()) for it in followers]
            await happen(attacked, EVENTS)
            await until(lambda: min(it.count for it in followers) >= EVENTS)
            during = attacked.uss() - before
            for it in following:
                it.cancel()
            await asyncio.gather(*following, return_exceptions=True)
        assert {it.count for it in followers} == {EVENTS}
        told = {tuple(it.cursors) for it in followers if it.cursors is not None}
        assert len(told) == 1
        assert len(set(*told)) == EVENTS
        assert during < READERS * READER_BYTES_MAX + 64 * MIB
    attacked.calm()


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


def watching(kind: str, token: str, cursor: str, request_id: int | str = 1) -> bytes:
    """One request that waits, of each kind that there is."""
    if kind == "stream":
        return stream(token, cursor)
    if kind == "events":
        return head(token, "/v1/channels/default/quiet/stream", "GET", **STREAM)
    given = {
        "poll": ("feedback.read", {"after": cursor, "wait_s": 50, "filter": {"types": ["never.happens"]}}),
        "channel": ("channels.read", {"name": "quiet", "wait_s": 50}),
        "ask": ("agents.ask", {"name": "mute", "data": "x" * 10_000, "timeout_s": 50}),
    }
    if kind == "listen":
        wanted = {"notifications": {"resourceSubscriptions": ["steward://feedback"]}, "_meta": META}
        body = {"jsonrpc": "2.0", "id": request_id, "method": "subscriptions/listen", "params": wanted}
        headers = MCP | {"Mcp-Method": "subscriptions/listen", "Accept": "application/json, text/event-stream"}
        path = "/mcp"
    elif kind == "tool":
        body = tool_call("mute__wait", {"data": "x" * 10_000})
        headers, path = MCP | {"Mcp-Method": "tools/call", "Mcp-Name": "mute__wait"}, AGENTS
    else:
        name, body = given[kind]
        headers, path = {}, f"/v1/operations/{name}/call"
    said = orjson.dumps(body)
    return head(token, path, Content_Length=len(said), **{k.replace("-", "_"): v for k, v in headers.items()}) + said


@pytest.mark.parametrize("kind", ["poll", "channel", "events", "ask", "tool"])
async def test_two_hundred_watchers_who_never_read(attacked: Attacked, kind: str) -> None:
    """What waits for them stays small, others go on, and nothing of them is left when they are gone."""
    attacked.stack.apply(channel("quiet"), agent("mute", "Echo", capabilities=["wait"]))
    attacked.stack.call("agents.stop", name="mute")
    said = watching(kind, attacked.tokens["attacker"], now(attacked))
    with attacked.bystander(), attacked.sampled() as held:
        async with crowd(attacked.url, 200, receive_bytes=4096) as peers:
            await asyncio.gather(*(peer.say(said) for peer in peers))
            await happen(attacked, 80)
            if kind == "events":
                attacked.stack.call("channels.publish", name="quiet", data="x" * 20_000)
    assert held.grown() < 64 * MIB
    assert held.grown("gate") < 16 * MIB
    attacked.calm()
    assert attacked.stack.call("system.status")["ready"]


async def test_streams_that_are_not_read_are_ended_and_go_on_by_their_cursor(attacked: Attacked) -> None:
    """More than two hundred buffers hold: after `answer_s_max` the connections go, and whoever comes back with the
    last cursor has missed nothing.
    """
    token, cursor = attacked.tokens["attacker"], now(attacked)
    files = attacked.files()
    with attacked.bystander(), attacked.sampled() as held:
        async with crowd(attacked.url, 200, receive_bytes=4096) as peers:
            await asyncio.gather(*(peer.say(stream(token, cursor)) for peer in peers))
            await until(lambda: attacked.files() >= files + 150)
            await happen(attacked, 1600)
            await until(lambda: attacked.files() <= files + 16, ANSWER_S_MAX + 60)
    assert held.grown() < UNSENT_BYTES_MAX + 64 * MIB
    assert held.grown("gate") < 16 * MIB
    async with connected(attacked.url) as peer:
        await peer.say(stream(token, cursor))
        follower = Follower(peer, remembering=False)
        following = asyncio.ensure_future(follower.follow())
        await until(lambda: follower.count == 1600)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_subscriptions_that_are_not_read_are_ended(attacked: Attacked) -> None:
    """Each notification repeats an id of 20,000 characters: buffers fill, after `answer_s_max` the connections go, and
    what waits for them stays bounded.
    """
    said = watching("listen", attacked.tokens["attacker"], "", "i" * 20_000)
    files = attacked.files()
    with attacked.bystander(), attacked.sampled() as held:
        async with crowd(attacked.url, 200, receive_bytes=4096) as peers:
            await asyncio.gather(*(peer.say(said) for peer in peers))
            await until(lambda: attacked.files() >= files + 150)
            await happen(attacked, 400)
            await until(lambda: attacked.files() <= files + 16, ANSWER_S_MAX + 60)
    assert held.grown() < UNSENT_BYTES_MAX + 64 * MIB
    assert held.grown("gate") < 16 * MIB
    attacked.calm()


async def test_answers_that_nobody_takes_are_bounded_together(attacked: Attacked) -> None:
    """Of forty who ask for ten megabytes and read nothing, those that stalled longest go; memory stays bounded."""
    attacked.stack.apply(channel("heavy"))
    for n in range(10):
        attacked.stack.call("channels.publish", name="heavy", data=str(n) * 1_000_000)
    body = orjson.dumps({"name": "heavy", "limit": 10})
    said = head(attacked.tokens["attacker"], "/v1/operations/channels.read/call", Content_Length=len(body)) + body
    files = attacked.files()
    with attacked.bystander(), attacked.sampled() as held:
        async with crowd(attacked.url, 40, receive_bytes=4096) as peers:
            for peer in peers:  # what is being made at once is bounded by calls, and not meant here
                await peer.say(said)
                await asyncio.sleep(0.1)
            await until(lambda: attacked.files() <= files + 3, ANSWER_S_MAX + 60)
    assert held.grown() < UNSENT_BYTES_MAX + 128 * MIB
    assert held.grown("gate") < 16 * MIB
    attacked.calm()


async def test_calls_have_places_too(attacked: Attacked) -> None:
    """A thousand long polls of one principal are more than its share; the bystander's calls find theirs."""
    said = watching("poll", attacked.tokens["attacker"], now(attacked))
    with attacked.bystander():
        async with crowd(attacked.url, 1000) as peers:
            await asyncio.gather(*(peer.say(said) for peer in peers))
            answers = [asyncio.ensure_future(peer.problem(45)) for peer in peers]
            await until(lambda: sum(it.done() for it in answers) >= 1000 - 819, 40)
            done = [it for it in answers if it.done()]
            assert {(it.result().reason, it.result().metadata["limit"]) for it in done} == {
                ("QUOTA", "calls_in_flight_max")
            }
            for it in answers:
                it.cancel()
            await asyncio.gather(*answers, return_exceptions=True)


async def test_the_same_again_and_again_leaves_nothing(attacked: Attacked) -> None:
    """Three rounds of a thousand streams and polls: what the first left in memory, the others do not add to."""
    token = attacked.tokens["attacker"]
    cursor, left = now(attacked), []
    for _ in range(3):
        async with crowd(attacked.url, 1000) as peers:
            for n, peer in enumerate(peers):
                await peer.say(watching("poll" if n % 2 else "stream", token, cursor))
            await until(lambda: attacked.files() >= 1000)
        attacked.calm()
        left.append(attacked.uss())
    assert left[2] - left[0] < 16 * MIB
    assert attacked.stack.call("system.status")["ready"]
    assert attacked.stack.call("feedback.read", after=cursor)["cursor"]
