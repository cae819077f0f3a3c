"""Streams of channels on a real port: server-sent events and WebSockets, who may, who is slow, what is told."""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from controlplane.api import channel_streams, sockets
from controlplane.api.bearers import BEARER_PROTOCOL, STREAM_PROTOCOL
from controlplane.store.retention import Retention
from tests.api.plane import Plane
from tests.api.plane import listening as listens
from tests.api.test_events import Reader
from tests.protocols.test_webhooks import apply

pytestmark = pytest.mark.anyio
PATH = "/v1/channels/default/news/stream"


@pytest.fixture
async def plane(anyio_backend: str, quick_url: str) -> AsyncIterator[Plane]:
    async with listens(quick_url) as found:
        await apply(found, {"kind": "Channel", "metadata": {"name": "news"}, "spec": {}})
        yield found


async def publish(plane: Plane, *data: Any) -> None:
    async with httpx.AsyncClient(base_url=plane.url, headers=plane.headers(), timeout=20) as client:
        for it in data:
            answered = await client.post("/v1/channels/default/news/publish", json={"data": it})
            assert answered.status_code == 200, answered.text


@contextlib.asynccontextmanager
async def events(plane: Plane, token: str = "admin", query: str = "", **headers: str) -> AsyncIterator[Reader]:
    async with (
        httpx.AsyncClient(base_url=plane.url, timeout=20) as client,
        client.stream("GET", PATH + query, headers=plane.headers(token) | headers) as answer,
    ):
        yield Reader(answer)


def socket(plane: Plane, token: str | None = "admin", query: str = "", path: str = PATH, **headers: str) -> connect:
    url = plane.url.replace("http://", "ws://") + path + query
    return connect(url, additional_headers=plane.headers(token, **headers), open_timeout=20, max_size=2**22)


async def said(peer: ClientConnection, want: str) -> dict[str, Any]:
    """The next thing that is told and has this field."""
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = orjson.loads(await peer.recv())
            if want in found:
                return found


async def test_events_go_on_where_they_were(plane: Plane) -> None:
    """From the beginning; after a cursor, or after the last id; what comes while somebody reads comes at once."""
    await publish(plane, 1, 2)
    async with events(plane) as reader:
        assert reader.answer.headers["content-type"].startswith("text/event-stream")
        found = [await reader.frame() for _ in range(2)]
        assert [orjson.loads(it["data"])["data"] for it in found] == [1, 2]
        await publish(plane, 3)
        assert orjson.loads((await reader.frame())["data"])["data"] == 3
    async with events(plane, **{"Last-Event-ID": found[0]["id"]}) as reader:
        assert orjson.loads((await reader.frame())["data"])["data"] == 2
    async with events(plane, query=f"?after={found[1]['id']}") as reader:
        assert orjson.loads((await reader.frame())["data"])["data"] == 3


async def test_events_go_on_in_a_channel_that_was_made_anew(plane: Plane) -> None:
    """Behind the last id of the one before; what that had further is told by a gap."""
    await publish(plane, 1, 2)
    async with events(plane) as reader:
        ids = [(await reader.frame())["id"] for _ in range(2)]
    async with httpx.AsyncClient(base_url=plane.url, headers=plane.headers(), timeout=20) as client:
        plan = (await client.delete("/v1/channels/default/news")).json()
        assert (await client.post(f"/v1/plans/{plan['plan_id']}/commit", json={})).status_code == 200
    await apply(plane, {"kind": "Channel", "metadata": {"name": "news"}, "spec": {}})
    await publish(plane, 3, 4, 5)
    for last, wanted in ((ids[1], [3, 4, 5]), (ids[0], [{"from": "2", "to": "2"}, 3, 4, 5])):
        async with events(plane, **{"Last-Event-ID": last}) as reader:
            found = [orjson.loads((await reader.frame())["data"])["data"] for _ in wanted]
        assert found == wanted


async def test_a_socket_reads_and_publishes(plane: Plane) -> None:
    """In both directions at once; the same request id is published once; what is wrong is told, and it goes on."""
    await publish(plane, 0)
    async with socket(plane) as one, socket(plane, query="?after=1") as other:
        assert (await said(one, "envelope"))["envelope"]["data"] == 0
        for n in (1, 1):
            await one.send(orjson.dumps({"publish": {"data": n, "request_id": f"r{n}"}, "ref": n}).decode())
        answers = [await said(one, "published") for _ in range(2)]
        assert answers[0]["published"] == answers[1]["published"]
        assert answers[0]["ref"] == 1
        assert (await said(other, "envelope"))["envelope"]["data"] == 1
        wrong = {
            "nonsense": ("MALFORMED_JSON", None),
            "7": ("INVALID_VALUE", "/publish"),
            '{"publish":{"data":1},"more":2}': ("UNKNOWN_FIELD", "/more"),
            '{"publish":{"data":1,"name":"other"}}': ("UNKNOWN_FIELD", "/publish/name"),
            '{"publish":{"dat":1}}': ("UNKNOWN_FIELD", "/dat"),
        }
        for text, (reason, field) in wrong.items():
            await one.send(text)
            found = (await said(one, "problem"))["problem"]
            assert (found["reason"], found["field"]) == (reason, field), text
        await one.send(b"bytes")
        assert (await said(one, "problem"))["problem"]["reason"] == "INVALID_VALUE"
        await one.send('{"publish":{"data":"on"},"ref":null}')
        assert (await said(one, "published"))["published"]["position"] == "3"


def offered(token: str) -> str:
    return BEARER_PROTOCOL + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


async def test_a_page_brings_its_token_as_a_subprotocol(plane: Plane) -> None:
    """As browsers can, with an origin of ours; the answer names our protocol, and never the token."""
    await publish(plane, 1)
    url = plane.url.replace("http://", "ws://") + PATH
    protocols: list[Any] = [STREAM_PROTOCOL, offered(plane.tokens["operator"])]
    for order in (protocols, protocols[::-1]):
        async with connect(url, subprotocols=order, origin=Origin("http://localhost:3000"), open_timeout=20) as peer:
            assert peer.subprotocol == STREAM_PROTOCOL
            assert plane.tokens["operator"] not in str(peer.response)
            assert (await said(peer, "envelope"))["envelope"]["data"] == 1
            await peer.send('{"publish":{"data":2,"request_id":"p"},"ref":1}')
            assert (await said(peer, "published"))["ref"] == 1
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, subprotocols=protocols, origin=Origin("https://far.example"), open_timeout=20)
    assert orjson.loads(refused.value.response.body)["reason"] == "FOREIGN_ORIGIN"


async def test_a_subprotocol_that_is_no_token_is_refused(plane: Plane) -> None:
    """Wrong, alone, twice, or beside the header: told alike, and never repeated. Header clients may name ours, too."""
    url = plane.url.replace("http://", "ws://") + PATH
    own, other = offered(plane.tokens["admin"]), offered(plane.tokens["viewer"])
    wrong: list[tuple[list[str], dict[str, str]]] = [
        ([STREAM_PROTOCOL, offered("nonsense")], {}),
        ([STREAM_PROTOCOL, BEARER_PROTOCOL], {}),
        ([STREAM_PROTOCOL, BEARER_PROTOCOL + "~"], {}),
        ([STREAM_PROTOCOL], {}),
        ([own], {}),
        ([STREAM_PROTOCOL, own, other], {}),
        ([STREAM_PROTOCOL, own], plane.headers()),
    ]
    for protocols, headers in wrong:
        given: Any = protocols
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, subprotocols=given, additional_headers=headers, open_timeout=20)
        told = refused.value.response
        assert (told.status_code, orjson.loads(told.body)["reason"]) == (401, "UNAUTHENTICATED"), protocols
        assert own.encode() not in told.body
    both: Any = [STREAM_PROTOCOL]
    async with connect(url, subprotocols=both, additional_headers=plane.headers(), open_timeout=20) as peer:
        assert peer.subprotocol == STREAM_PROTOCOL


@pytest.mark.parametrize(
    ("token", "path", "query", "status"),
    [
        (None, PATH, "", 401),
        ("nonsense", PATH, "", 401),
        ("foreign", PATH, "", 404),
        ("admin", "/v1/channels/default/none/stream", "", 404),
        ("admin", PATH, "?after=nonsense", 422),
        ("admin", PATH, "?since=1", 422),
    ],
)
async def test_who_may_not_is_told_before_it_begins(
    plane: Plane, token: str | None, path: str, query: str, status: int
) -> None:
    """By a Problem, of both kinds of streams alike."""
    async with httpx.AsyncClient(base_url=plane.url, timeout=20) as client:
        answered = await client.get(path + query, headers=plane.headers(token))
    with pytest.raises(InvalidStatus) as refused:
        await socket(plane, token, query, path)
    response = refused.value.response
    told = orjson.loads(response.body)
    assert {answered.status_code, response.status_code, told["status"]} <= {status, 403}
    assert answered.status_code == response.status_code
    assert told["reason"] == answered.json()["reason"]
    assert response.headers["content-type"] == "application/problem+json"


async def test_what_is_published_over_a_socket_goes_on_in_its_trace(plane: Plane) -> None:
    """Each message says its own; one that says none, or none that is one, begins another."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with socket(plane) as peer:
        for given in (trace, "x", 7, None):
            await peer.send(orjson.dumps({"publish": {"data": 1}, "traceparent": given}).decode())
        told = [(await said(peer, "envelope"))["envelope"]["traceparent"] for _ in range(4)]
        assert told[0] == trace
        assert len({it.split("-")[1] for it in told}) == 4


async def test_a_viewer_reads_and_does_not_publish(plane: Plane) -> None:
    """And a foreign origin has no socket at all."""
    async with socket(plane, "viewer") as peer:
        await peer.send('{"publish":{"data":1}}')
        assert (await said(peer, "problem"))["problem"]["reason"] == "FORBIDDEN"
    with pytest.raises(InvalidStatus) as refused:
        await socket(plane, Origin="https://far.example")
    assert orjson.loads(refused.value.response.body)["reason"] == "FOREIGN_ORIGIN"


async def test_a_revoked_token_ends_its_streams(plane: Plane) -> None:
    """With a Problem, also when nothing comes in the channel."""
    async with socket(plane, "viewer") as peer, events(plane, "viewer") as reader:
        await said(peer, "cursor")
        await plane.call(
            (await plane.parts.authenticate(plane.tokens["admin"])),
            "tokens.revoke",
            {"token_id": plane.token_ids["viewer"]},
        )
        await asyncio.sleep(0.3)  # for which a check of a token holds
        await publish(plane, 1)
        assert (await said(peer, "problem"))["problem"]["reason"] == "UNAUTHENTICATED"
        with pytest.raises(ConnectionClosed):
            await peer.recv()
        async with asyncio.timeout(20):
            while (frame := await reader.frame()).get("event") != "problem":
                pass
        assert orjson.loads(frame["data"])["reason"] == "UNAUTHENTICATED"


async def test_a_slow_reader_lags_and_slows_nobody(plane: Plane) -> None:
    """Others read on while one takes nothing; who comes back is told of what was dropped meanwhile."""
    large = "x" * 190_000
    url = plane.url.removeprefix("http://")
    host, port = url.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    head = f"GET {PATH} HTTP/1.1\r\nHost: {url}\r\nAuthorization: Bearer {plane.tokens['admin']}\r\n\r\n"
    writer.write(head.encode())
    await reader.readuntil(b"\r\n\r\n")
    async with socket(plane) as peer:
        began = time.monotonic()
        for n in range(12):
            await publish(plane, [n, large])
            while (await said(peer, "envelope"))["envelope"]["data"][0] != n:
                pass
        assert time.monotonic() - began < 20
    writer.close()
    retention = Retention(plane.store, 1e9, 1e9)
    await retention.sweep(time.time() + 604_900)
    await publish(plane, "after")
    async with socket(plane, query="?after=3") as peer:
        gap = (await said(peer, "envelope"))["envelope"]
        assert (gap["type"], gap["data"]) == ("steward.gap", {"from": "4", "to": "12"})
        assert (await said(peer, "envelope"))["envelope"]["data"] == "after"


async def test_sockets_are_bounded(plane: Plane) -> None:
    """A message too large ends its connection; there are so many sockets and no more; places come back."""
    async with socket(plane) as peer:
        await peer.send('"' + "x" * sockets.MESSAGE_BYTES_MAX + '"')
        with pytest.raises(ConnectionClosed) as closed:
            await said(peer, "nothing")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    async with contextlib.AsyncExitStack() as stack:
        share = int(channel_streams.SOCKETS_MAX * 0.8)
        for _ in range(share):
            await stack.enter_async_context(socket(plane))
        with pytest.raises(InvalidStatus) as refused:
            await socket(plane)
        assert orjson.loads(refused.value.response.body)["reason"] == "QUOTA"
        async with socket(plane, "operator") as peer:
            await said(peer, "cursor")
    async with socket(plane) as peer:
        await said(peer, "cursor")
