"""Feedback over HTTP: JSON by waiting, and server-sent events on a real socket."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from controlplane.feedback.stream import EventStreams
from tests.api.plane import Plane, listening
from tests.api.test_authorization import require_problem

pytestmark = pytest.mark.anyio

STREAM = {"Accept": "text/event-stream"}


class Reader:
    """Frames of one stream, as they come."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def frame(self) -> dict[str, str]:
        """The next frame that tells something."""
        while True:
            found: dict[str, str] = {}
            async for line in self._lines:
                if not line:
                    break
                name, _, value = line.partition(":")
                found[name] = value.strip()
            else:
                raise EOFError
            if "data" in found:
                return found

    async def events(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(10):
            frames = [await self.frame() for _ in range(count)]
        for frame in frames:
            assert frame["id"] == orjson.loads(frame["data"])["cursor"]
            assert frame["event"] == orjson.loads(frame["data"])["type"]
        return [orjson.loads(frame["data"]) for frame in frames]


@asynccontextmanager
async def stream(
    plane: Plane, token: str = "admin", path: str = "/v1/feedback", **headers: str
) -> AsyncIterator[Reader]:
    async with (
        httpx.AsyncClient(base_url=plane.url, timeout=20) as client,
        client.stream("GET", path, headers=plane.headers(token) | STREAM | headers) as answer,
    ):
        yield Reader(answer)


async def test_a_stream_tells_what_was_and_what_comes(live: Plane) -> None:
    """Events from the beginning, then each as it happens, in order."""
    await live.happen("x.first")
    async with stream(live, "viewer") as reader:
        assert reader.answer.headers["content-type"].startswith("text/event-stream")
        assert [it["type"] for it in await reader.events(1)] == ["x.first"]
        began = time.monotonic()
        await live.happen("x.second")
        assert [it["type"] for it in await reader.events(1)] == ["x.second"]
        assert time.monotonic() - began < 2


async def test_a_reader_who_comes_back_misses_nothing(live: Plane) -> None:
    """`Last-Event-ID` goes on from there, before `after`; `after` goes on too."""
    for number in range(4):
        await live.happen(f"x.{number}")
    async with stream(live, "viewer") as reader:
        seen = await reader.events(2)
    async with stream(live, "viewer", **{"Last-Event-ID": seen[1]["cursor"]}) as reader:
        assert [it["type"] for it in await reader.events(2)] == ["x.2", "x.3"]
    async with stream(live, "viewer", path=f"/v1/feedback?after={seen[0]['cursor']}") as reader:
        assert [it["type"] for it in await reader.events(3)] == ["x.1", "x.2", "x.3"]


async def test_a_stream_shows_only_what_its_reader_may_see(live: Plane) -> None:
    """Other namespaces' events do not come; a filter holds for the whole stream."""
    await live.happen("x.mine")
    await live.happen("x.theirs", "elsewhere")
    path = '/v1/feedback?filter={"types":["x.*"]}'
    async with stream(live, "foreign", path=path) as reader:
        assert [it["type"] for it in await reader.events(1)] == ["x.theirs"]
        await live.happen("x.mine")
        await live.happen("y.theirs", "elsewhere")
        await live.happen("x.more", "elsewhere")
        assert [it["type"] for it in await reader.events(1)] == ["x.more"]


@pytest.mark.parametrize(
    ("path", "headers", "status", "reason"),
    [
        ("/v1/feedback?after=41", {}, 422, "INVALID_CURSOR"),
        ("/v1/feedback", {"Last-Event-ID": "41"}, 422, "INVALID_CURSOR"),
        ("/v1/feedback?nonsense=1", {}, 422, "UNKNOWN_FIELD"),
        ("/v1/feedback", {"Authorization": ""}, 401, "UNAUTHENTICATED"),
    ],
)
async def test_a_wrong_question_is_a_problem_not_a_stream(
    live: Plane, path: str, headers: dict[str, str], status: int, reason: str
) -> None:
    """What is wrong is answered before a stream begins."""
    async with stream(live, path=path, **headers) as reader:
        await reader.answer.aread()
        require_problem(reader.answer, status, reason)


async def test_who_accepts_json_gets_json(live: Plane) -> None:
    """A stream is for those who ask for one."""
    async with stream(live, Accept="application/json, text/event-stream") as reader:
        await reader.answer.aread()
        assert "cursor" in reader.answer.json()


async def test_a_revoked_token_ends_its_stream(anyio_backend: str, quick_url: str) -> None:
    """The last frame says why."""
    async with listening(quick_url, streams=EventStreams(heartbeat_s=0.2)) as plane, stream(plane, "viewer") as reader:
        async with httpx.AsyncClient(base_url=plane.url, headers=plane.headers()) as admin:
            await admin.post(f"/v1/tokens/{plane.token_ids['viewer']}/revoke")
        async with asyncio.timeout(5):
            last = await reader.frame()
        assert last["event"] == "problem"
        assert orjson.loads(last["data"])["reason"] == "UNAUTHENTICATED"


async def test_streams_are_bounded(anyio_backend: str, quick_url: str) -> None:
    """One too many is told to wait; one that ended makes room."""
    async with listening(quick_url, streams=EventStreams(readers_max=1, heartbeat_s=0.2)) as plane:
        async with stream(plane), stream(plane) as second:
            await second.answer.aread()
            require_problem(second.answer, 429, "QUOTA")
        async with asyncio.timeout(5):
            while True:
                async with stream(plane) as third:
                    if third.answer.status_code == 200:
                        break
                await asyncio.sleep(0.02)


async def test_a_stopping_plane_lets_its_readers_go(anyio_backend: str, quick_url: str) -> None:
    """Streams and long reads end at once when the plane stops, and are told to come back."""
    began = 0.0
    async with listening(quick_url) as plane:
        waiting = asyncio.ensure_future(_long_read(plane))
        opened = stream(plane)
        reader = await opened.__aenter__()
        await asyncio.sleep(0.3)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    answer = await waiting
    require_problem(answer, 503, "NOT_READY")
    async with asyncio.timeout(5):
        while (frame := await reader.frame())["event"] != "problem":
            pass
    assert orjson.loads(frame["data"])["reason"] == "NOT_READY"
    await opened.__aexit__(None, None, None)


async def _long_read(plane: Plane) -> httpx.Response:
    async with httpx.AsyncClient(base_url=plane.url, headers=plane.headers(), timeout=40) as client:
        cursor = (await client.get("/v1/feedback")).json()["cursor"]
        return await client.get("/v1/feedback", params={"after": cursor, "wait_s": 30})


async def test_waiting_by_json(live: Plane) -> None:
    """`wait_s` answers with the first event that comes."""
    async with httpx.AsyncClient(base_url=live.url, headers=live.headers("viewer"), timeout=40) as client:
        cursor = (await client.get("/v1/feedback")).json()["cursor"]
        waiting = asyncio.ensure_future(client.get("/v1/feedback", params={"after": cursor, "wait_s": 30}))
        await asyncio.sleep(0.1)
        await live.happen("x.now")
        page = (await asyncio.wait_for(waiting, 5)).json()
    assert [it["type"] for it in page["events"]] == ["x.now"]


@pytest.mark.parametrize("path", ["/v1/feedback", "/v1/operations/feedback.read/call", "/mcp/full"])
async def test_a_long_read_ends_with_its_reader(live: Plane, path: str) -> None:
    """Who hangs up is no longer waited for."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    async with httpx.AsyncClient(base_url=live.url, headers=live.headers(), timeout=40) as client:
        cursor = (await client.get("/v1/feedback")).json()["cursor"]
        given = {"after": cursor, "wait_s": 50}
        calling = {"name": "feedback_read", "arguments": given, "_meta": meta}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": calling}
        modern = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "feedback_read"}
        asked = {
            "/v1/feedback": lambda: client.get(path, params=given),
            "/mcp/full": lambda: client.post(path, json=message, headers=modern | {"Accept": "application/json"}),
        }.get(path, lambda: client.post(path, json=given))
        reading = asyncio.ensure_future(asked())
        await _eventually(lambda: len(live.bell._waiting) >= 3)  # the reader, and the two loops of the plane
        reading.cancel()
        await _eventually(lambda: len(live.bell._waiting) <= 2)


async def _eventually(condition: Any, limit_s: float = 5) -> None:
    """The loops of the plane wait and look in turn, so what is seen once is enough."""
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.005)


async def test_a_namesake_elsewhere_has_a_share_of_its_own(quick_url: str) -> None:
    """Whoever is called the same and reaches another namespace is somebody else: for streams, and for calls."""
    async with listening(quick_url, streams=EventStreams(10), calls_in_flight_max=10) as plane:
        async with AsyncExitStack() as open_streams:
            for _ in range(8):  # four fifths
                await open_streams.enter_async_context(stream(plane, "operator"))
            async with stream(plane, "operator") as one_more:
                assert one_more.answer.status_code == 429
            async with stream(plane, "namesake") as other:
                assert other.answer.status_code == 200
        async with httpx.AsyncClient(base_url=plane.url, timeout=20) as client:

            async def poll(token: str, wait_s: float) -> int:
                given = {"wait_s": wait_s, "filter": {"types": ["never.happens"]}}
                path, headers = "/v1/operations/feedback.read/call", plane.headers(token)
                return (await client.post(path, json=given, headers=headers)).status_code

            waiting = [asyncio.ensure_future(poll("operator", 2)) for _ in range(12)]
            done, _ = await asyncio.wait(waiting, timeout=1)
            assert {it.result() for it in done} == {429}
            assert await poll("namesake", 0) == 200
            assert sorted(await asyncio.gather(*waiting)) == [200] * 8 + [429] * 4
