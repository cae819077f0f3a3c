"""What a client is told of beside its answers: that a wait goes on, that a list changed; and only what was promised."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from mcp import Client, MCPError

from mcp_server import telling
from tests.api.plane import Plane
from tests.mcp.calls import done
from tests.mcp.conftest import Connect, connected

pytestmark = pytest.mark.anyio

CHANNEL = {"kind": "Channel", "metadata": {"name": "reports"}}


async def test_who_waits_with_a_token_is_told_that_it_goes_on(
    plane: Plane, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long call reports progress that grows, on both endpoints, and ends with its answer."""
    monkeypatch.setattr(telling, "TOLD_EVERY_S", 0.02)
    for path, tool, waits in (("/mcp", "wait", "timeout_s"), ("/mcp/full", "feedback_read", "wait_s")):
        told: list[float] = []
        enough = asyncio.Event()

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            told.append(progress)  # noqa: B023 - the loop's own list, read before the next round
            if len(told) >= 3:  # noqa: B023
                enough.set()  # noqa: B023

        async with connect(path) as client:
            cursor = (await done(client, "look" if path == "/mcp" else "system_brief"))["data"]["cursor"]
            calling = asyncio.ensure_future(
                client.call_tool(tool, {"after": cursor, waits: 60}, progress_callback=tell)
            )
            await asyncio.wait_for(enough.wait(), 20)
            await plane.happen("x.happened")
            answer: Any = await asyncio.wait_for(calling, 20)
            assert answer.structured_content["data"]["events"]
            assert told == sorted(set(told))


async def test_who_gives_no_token_gets_one_json_answer(plane: Plane) -> None:
    """Without a token nothing is streamed, and with one only to who takes a stream."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "look", "arguments": {}}}
    both = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    params: dict[str, Any] = call["params"]  # type: ignore[assignment]
    with_token = call | {"params": params | {"_meta": {"progressToken": "t"}}}
    async with httpx.AsyncClient(headers=plane.headers() | both, timeout=30) as client:
        for message, accept, wanted in (
            (call, both["Accept"], "application/json"),
            (with_token, both["Accept"], "text/event-stream"),
            (with_token, "application/json", "application/json"),
        ):
            answer = await client.post(f"{plane.url}/mcp", json=message, headers={"Accept": accept})
            assert answer.status_code == 200
            assert answer.headers["content-type"].partition(";")[0] == wanted
            assert '"ok":true' in answer.text.replace("\\", "")


async def _create(client: Client) -> None:
    plan = await done(client, "propose", manifests=[CHANNEL])
    await done(client, "commit", plan_id=plan["ref"])


async def test_a_list_that_changed_is_told_to_who_asked(plane: Plane) -> None:
    """A resource that comes or goes is told on a stream that asked for the list, and on no other."""
    uri = "steward://Channel/default/reports"
    async with (
        connected(plane, "/mcp", "admin", "modern") as client,
        client.listen(resources_list_changed=True) as listed,
        client.listen(resource_subscriptions=[uri]) as watched,
    ):
        await _create(client)
        kinds = [type(await asyncio.wait_for(anext(aiter(stream)), 20)).__name__ for stream in (listed, watched)]
    assert kinds == ["ResourcesListChanged", "ResourceUpdated"]


async def test_only_what_is_done_is_promised(connect: Connect) -> None:
    """The lists of tools never change, and no client is told to wait for that."""
    async with connect() as client:
        capabilities = client.server_capabilities
    assert capabilities is not None
    assert capabilities.tools is not None
    assert not capabilities.tools.list_changed
    assert (capabilities.prompts, capabilities.logging, capabilities.completions) == (None, None, None)


async def test_an_address_of_nothing_is_named_in_the_error(connect: Connect) -> None:
    """An error of `resources/read` says which address it is about, whatever the reason is."""
    async with connect() as client:
        for uri in ("steward://Channel/default/none", "steward://Nothing/a/b"):
            with pytest.raises(MCPError) as refused:
                await client.read_resource(uri)
            assert refused.value.error.data["uri"] == uri


async def test_padding_of_a_header_is_no_part_of_it(plane: Plane) -> None:
    """Blanks around the value of a header change nothing, as HTTP has it."""
    meta: dict[str, Any] = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    meta["io.modelcontextprotocol/clientCapabilities"] = {}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "look", "_meta": meta}}
    body = orjson.dumps(call)
    given = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "look", "Accept": "*/*"}
    given |= plane.headers() | {"Content-Type": "application/json", "Host": "127.0.0.1"}
    lines = [f"{name}:  {value} \t " for name, value in given.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(plane.url.rpartition(":")[2]))
    writer.write("\r\n".join(["POST /mcp HTTP/1.1", *lines]).encode() + body)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200")
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["result"]["isError"] is False
