"""What is malformed is told so, clearly, and nothing of it is kept; whatever route it comes by."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from tests.api.plane import BODY_BYTES_MAX, Plane, listening
from tests.api.test_authorization import require_problem

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
CALL = "/v1/operations/operations.search/call"


def nested(depth: int) -> bytes:
    return b'{"query":' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize("path", [CALL, "/v1/resources/propose", "/mcp", "/mcp/full"])
@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "MALFORMED_JSON"),
        (b"{'query': 1}", 400, "MALFORMED_JSON"),
        (b'{"query": "\xff"}', 400, "MALFORMED_JSON"),
        (b'{"query": "\xed\xa0\x80"}', 400, "MALFORMED_JSON"),
        (b'{"query": "\\ud800"}', 400, "MALFORMED_JSON"),
        (b'\xef\xbb\xbf{"query": "a"}', 400, "MALFORMED_JSON"),
        (b'{"query": NaN}', 400, "MALFORMED_JSON"),
        (b'{"query": 1e999}', 400, "MALFORMED_JSON"),
        (b'{"query": "a", "query": "b"}', 400, "MALFORMED_JSON"),
        (b'{"query": "a"} {}', 400, "MALFORMED_JSON"),
        (b'{"query": 01}', 400, "MALFORMED_JSON"),
        (nested(80), 400, "MALFORMED_JSON"),
        (nested(50_000), 400, "MALFORMED_JSON"),
        (b'{"limit": 123456789012345678901234567890}', 422, "OUT_OF_RANGE"),
    ],
    ids=lambda it: repr(it)[:40],
)
async def test_malformed_bodies(client: httpx.AsyncClient, path: str, body: bytes, status: int, reason: str) -> None:
    """The same body is the same Problem on every path."""
    require_problem(await client.post(path, content=body, headers=JSON), status, reason)


@pytest.mark.parametrize("body", [b"[]", b'"a"', b"1", b"null", b"true"])
async def test_a_body_that_is_no_object(client: httpx.AsyncClient, body: bytes) -> None:
    """The input is one object."""
    for path in (CALL, "/v1/resources/propose"):
        require_problem(await client.post(path, content=body, headers=JSON), 422, "NOT_AN_OBJECT")


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "multipart/form-data"],
)
async def test_other_content_types(client: httpx.AsyncClient, content_type: str) -> None:
    """A body is declared as JSON in UTF-8, or refused: no browser's form gets through."""
    answer = await client.post(CALL, content=b'{"query": "a"}', headers={"Content-Type": content_type})
    require_problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
async def test_json_in_utf8(client: httpx.AsyncClient, content_type: str) -> None:
    """Ways to say the right thing are all right, and so is no body at all."""
    answer = await client.post(CALL, content=b'{"query": "a"}', headers={"Content-Type": content_type})
    assert answer.status_code == 200
    assert (await client.post(CALL)).status_code == 200


async def test_too_large_bodies(client: httpx.AsyncClient) -> None:
    """Refused by its declared length, and by its real one where none is declared."""
    body = orjson.dumps({"query": "a" * BODY_BYTES_MAX})

    async def streamed() -> Any:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]

    for path in (CALL, "/mcp"):
        require_problem(await client.post(path, content=body, headers=JSON), 413, "TOO_LARGE")
        require_problem(await client.post(path, content=streamed(), headers=JSON), 413, "TOO_LARGE")


async def test_an_endless_body_is_stopped(live: Plane) -> None:
    """Over a real socket a chunked body is refused at the limit, while more of it could come."""
    host, _, port = live.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {CALL} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {live.tokens['admin']}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"a" * 50_000
    for _ in range(BODY_BYTES_MAX // len(piece) + 2):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    assert answer.startswith(b"HTTP/1.1 413")
    writer.close()


async def test_large_bodies_do_not_stop_the_loop(client: httpx.AsyncClient) -> None:
    """A body near the limit is parsed, and is refused for what it says."""
    body = orjson.dumps({"query": [{"k": number} for number in range(15_000)]})
    require_problem(await client.post(CALL, content=body, headers=JSON), 422, "INVALID_VALUE")


SAME = [
    ("channels.list", {"limit": 0}, "OUT_OF_RANGE", "/limit"),
    ("channels.list", {"limit": "x"}, "INVALID_VALUE", "/limit"),
    ("channels.list", {"limit": 1.5}, "INVALID_VALUE", "/limit"),
    ("channels.list", {"nonsense": "1"}, "UNKNOWN_FIELD", "/nonsense"),
    ("channels.list", {"namespace": "Bad_Name"}, "INVALID_NAME", "/namespace"),
    ("channels.list", {"labels": {"a": "ü"}}, "INVALID_VALUE", "/labels/a"),
    ("channels.list", {"labels": "nonsense"}, "INVALID_VALUE", "/labels"),
    ("channels.list", {"page": "?"}, "INVALID_CURSOR", "/page"),
    ("feedback.read", {"wait_s": 1000}, "OUT_OF_RANGE", "/wait_s"),
    ("feedback.read", {"filter": {"kind": "Nothing"}}, "UNKNOWN_KIND", "/filter/kind"),
    ("feedback.read", {"after": "41"}, "INVALID_CURSOR", "/after"),
]


@pytest.mark.parametrize(("name", "given", "reason", "field"), SAME, ids=lambda it: str(it)[:40])
async def test_a_query_string_is_refused_like_a_body(
    client: httpx.AsyncClient, name: str, given: dict[str, Any], reason: str, field: str
) -> None:
    """The same bad input gives the same Problem, whether in the query or in the body."""
    texts = {key: it if isinstance(it, str) else orjson.dumps(it).decode() for key, it in given.items()}
    path = "/v1/feedback" if name == "feedback.read" else "/v1/channels"
    by_query = await client.get(path, params=texts)
    by_body = await client.post(f"/v1/operations/{name}/call", json=given)
    found = [require_problem(it, it.status_code, reason).model_dump(exclude={"instance"}) for it in (by_query, by_body)]
    assert found[0] == found[1]
    assert found[0]["field"] == field


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (b"limit=1&limit=2", "INVALID_VALUE"),
        (b"namespace=%ff", "INVALID_VALUE"),
        (b"&".join(b"a%d=1" % number for number in range(200)), "TOO_LARGE"),
    ],
)
async def test_query_strings_with_tricks(client: httpx.AsyncClient, query: bytes, reason: str) -> None:
    """A parameter comes once, in UTF-8, and there are not hundreds of them."""
    answer = await client.get(httpx.URL("http://127.0.0.1/v1/channels", query=query))
    require_problem(answer, answer.status_code, reason)


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "%00", "a%0ab", "UPPER", "%ff", "a" * 64, "-a", "ü"])
async def test_names_with_tricks(client: httpx.AsyncClient, name: str) -> None:
    """Paths hold names of ours, or nothing is there."""
    answer = await client.get(f"/v1/channels/default/{name}")
    require_problem(answer, answer.status_code, "INVALID_NAME", "NOT_FOUND")


async def test_path_and_body_must_agree(client: httpx.AsyncClient) -> None:
    """The body may repeat what the path says; a different value is refused, not preferred."""
    path = "/v1/plans/plan_a/commit"
    for body, reason in (({}, "NOT_FOUND"), ({"plan_id": "plan_a"}, "NOT_FOUND"), ({"plan_id": "b"}, "INVALID_VALUE")):
        answer = await client.post(path, json=body)
        found = require_problem(answer, answer.status_code, reason)
        assert found.field in ("/plan_id", None)


@pytest.mark.parametrize("begun", [b"", b'{"query"'], ids=["nothing", "a piece"])
async def test_a_body_that_does_not_come_is_not_waited_for(quick_url: str, begun: bytes) -> None:
    """Whether its first byte is missing or its last one, its time is the same, and then its place is free."""
    async with listening(quick_url, body_s_max=0.3) as live:
        assert b'"DEADLINE"' in await _announced(live, begun)


async def _announced(live: Plane, begun: bytes) -> bytes:
    """The answer to a body of which only the beginning comes."""
    where = httpx.URL(live.url)
    reader, writer = await asyncio.open_connection(where.host, where.port)
    head = f"POST {CALL} HTTP/1.1\r\nHost: {where.netloc.decode()}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {live.tokens['admin']}\r\nContent-Length: 50\r\n\r\n"
    writer.write(head.encode() + begun)
    answer = await asyncio.wait_for(reader.readuntil(b"}"), 10)
    writer.close()
    return answer
