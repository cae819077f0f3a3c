"""On a real port: what only a connection shows. Streams and subscriptions, and the command line."""

import asyncio
import io
import itertools
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from controlplane.cli.main import app
from controlplane.cli.spelling import spell
from controlplane.resources.catalogue import OPERATIONS
from tests.authorization import cases
from tests.authorization.test_matrix import foreign_reason, may
from tests.authorization.worlds import ABROAD, ROOT, World, manifest
from tests.mcp.conftest import connected

pytestmark = pytest.mark.anyio
WAIT_S = 30
ROLES = ("viewer", "operator", "admin", "agent", "viewer of all")
NUMBERS = itertools.count()


async def much_happens_elsewhere(world: World, number: int) -> None:
    """Declared, sent, published, put, issued: all of it foreign."""
    await world.apply(manifest("Channel", f"new-{number}", "elsewhere"), principal=ABROAD)
    await world.call("agents.send", ABROAD, namespace="elsewhere", name="hidden", data=number)
    await world.call("channels.join", ABROAD, namespace="elsewhere", name=f"new-{number}", agent="echo")
    await world.call("tokens.create", ROOT, principal="late", role="viewer", namespaces=["elsewhere"])


@asynccontextmanager
async def stream(world: World, label: str, **query: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Events as they are told to a principal from now on."""
    after = (await world.call("feedback.read", limit=500))["cursor"]
    headers = world.plane.headers(label) | {"Accept": "text/event-stream", "Last-Event-ID": after}
    async with world.client.stream("GET", "/v1/feedback", params=query, headers=headers) as answer:
        assert answer.status_code == 200
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield orjson.loads(line.removeprefix("data: "))


@pytest.mark.parametrize("label", ["operator", "viewer", "agent", "admin of two"])
@pytest.mark.parametrize("query", [{}, {"filter": '{"types": ["resource.*", "token.*"]}'}], ids=["all", "filtered"])
async def test_a_stream_tells_nothing_foreign(served: World, label: str, query: dict[str, str]) -> None:
    """However much happens elsewhere, the first thing heard is the first thing of ours; the cursor is foreign."""
    async with stream(served, label, **query) as told:
        number = next(NUMBERS)
        await much_happens_elsewhere(served, number)
        await served.apply(manifest("Channel", f"ours-{number}"))
        first = await asyncio.wait_for(anext(told), WAIT_S)
    assert first["subject"]["namespace"] == "default"
    assert first["type"] == "resource.created"


async def test_a_wait_is_not_ended_by_what_is_foreign(served: World) -> None:
    """A long read ends with the first event of ours, and with nothing else in it."""
    after = (await served.call("feedback.read", limit=500))["cursor"]
    given, headers = {"after": after, "wait_s": WAIT_S}, served.plane.headers("viewer")
    reading = asyncio.ensure_future(served.client.get("/v1/feedback", params=given, headers=headers))
    await much_happens_elsewhere(served, next(NUMBERS))
    assert not reading.done()
    await served.call("agents.stop", name="echo")
    page = (await asyncio.wait_for(reading, WAIT_S)).json()
    assert {it["subject"]["namespace"] for it in page["events"]} == {"default"}


async def test_a_subscription_tells_nothing_foreign(served: World) -> None:
    """Foreign addresses may be asked for like absent ones, and nothing is ever told of them."""
    theirs = [f"steward://{kind}/elsewhere/{name}" for kind in ("Agent", "Channel") for name in ("hidden", "echo")]
    mine, log = "steward://Channel/default/told", "steward://feedback"
    async with (
        connected(served.plane, "/mcp", "operator", "modern") as client,
        client.listen(resource_subscriptions=[mine, log, *theirs]) as told,
    ):
        await much_happens_elsewhere(served, next(NUMBERS))
        await served.apply(manifest("Channel", "told"))
        heard = [str((await asyncio.wait_for(anext(aiter(told)), WAIT_S)).uri) for _ in range(2)]  # type: ignore[union-attr]
    assert heard == [mine, log]


async def test_every_command_has_the_rights_of_its_token(served: World, tmp_path: Path) -> None:
    """The command of every operation: a wrong token, every role's own things, and what is foreign to it.

    An operator tries all that is foreign, an agent one thing of each operation; what acts is previewed.
    """
    for operation in OPERATIONS.values():
        own = cases.own_input(operation, served) | ({"dry_run": True} if operation.imperative else {})
        wrong = await steward(served, "stw_wrong", operation.name, own)
        assert wrong == (1, "UNAUTHENTICATED"), operation.name
        foreign = [
            (case, reason)
            for case in cases.foreign_cases(operation, served, served.foreign)
            if (reason := foreign_reason(operation, case)) is not None and case.field != "filter"
        ]
        for label in ROLES:
            allowed, token = may(served.principal(label), operation), served.plane.tokens[label]
            told = await steward(served, token, operation.name, own)
            if not allowed:
                assert told == (1, "FORBIDDEN"), (operation.name, label)
            elif operation.effect == "read" or operation.imperative:
                assert told == (0, "ok"), (operation.name, label)
            for case, reason in foreign if label == "operator" else foreign[:1] if label == "agent" else ():
                told = await steward(served, token, operation.name, case.given)
                assert told == (1, reason if allowed else "FORBIDDEN"), f"{operation.name}, {label}: {case.given}"


async def steward(world: World, token: str, name: str, given: dict[str, Any]) -> tuple[int, str]:
    """Run the command that makes a call; its exit code, and `ok` or the reason of its Problem."""
    _, *words = shlex.split(spell(name, given))
    words += ["--url", world.plane.url, "--token", token]
    return await asyncio.to_thread(_run, words if words[0] == "call" else [*words, "--output", "json"])


def _run(words: list[str]) -> tuple[int, str]:
    out, code = io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        try:
            app(words, prog_name="steward")
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    found = orjson.loads(out.getvalue())
    return code, "ok" if code == 0 else found["reason"]
