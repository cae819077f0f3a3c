"""Whatever changes something may be sent again: twice, at once, after an answer that was lost; it happens once."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from controlplane.effects import controls
from controlplane.operations import verification
from tests.api.plane import listening
from tests.conftest import SOAK
from tests.faults.points import SEED
from tests.faults.repeating import CHANGING, WAYS, World, lost, lost_tool, without
from tests.operations.plane import agent

pytestmark = pytest.mark.anyio
WAITING = ("agents.ask", "agents.suspend", "agents.wake")  # wait for a host that is not there
DATABASES = ("sqlite", "postgresql")
SHARED = {"propose": "agents.propose", "delete": "secrets.delete"}  # of each kind, by one handler


@contextlib.asynccontextmanager
async def world_on(url: str) -> AsyncIterator[World]:
    """A plane of this case alone, so that nobody's open claims are in its way."""
    async with listening(url) as plane:
        limits = httpx.Limits(max_connections=WAYS)
        async with httpx.AsyncClient(base_url=plane.url, headers=plane.headers(), timeout=60, limits=limits) as client:
            found = World(plane, client)
            await found.applied(agent("first"))  # the code that all agents here share is stored
            yield found


def cases() -> list[Any]:
    """On SQLite everything that has a handler of its own, on PostgreSQL some of what acts; in a soak all on both.

    A seed says which: what tells a repetition there is a row with a key, and the same for all of them.
    """
    found = []
    acting = sorted(name for name, it in CHANGING.items() if it.effect != "read" and name not in WAITING)
    sampled = {"plans.commit", *random.Random(SEED).sample(acting, len(acting) // 8)}
    for name, it in sorted(CHANGING.items()):
        if not SOAK and it.noun != "resources" and SHARED.get(it.verb, name) != name:
            continue
        both = SOAK or name in sampled
        found += [pytest.param(name, database, id=f"{name}-{database}") for database in DATABASES[: 1 + both]]
    return found


async def once(world: World, name: str) -> Counter[str]:
    """What one call adds."""
    raw = await world.fresh(CHANGING[name])
    return await world.effect(lambda: world.call(name, **raw))


def agree(name: str, answers: list[dict[str, Any]]) -> None:
    """All answers are one; of commits, exactly one committed."""
    if name == "plans.commit":
        assert Counter(it["outcome"] for it in answers) == {"committed": 1, "already_committed": len(answers) - 1}
        assert len({it["change_id"] for it in answers}) == 1
        return
    if name == "tokens.create":
        assert sum(it["token"] is not None for it in answers) == 1
    first = without(answers[0])
    assert all(without(it) == first for it in answers), answers


@pytest.mark.parametrize(("name", "database"), cases())
async def test_whatever_is_sent_again_happens_once(
    name: str, database: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent twice, by many at once, after lost answers, over MCP and then REST, with other input: one effect."""
    monkeypatch.setattr(controls, "PATIENCE_S", 0.3)  # no host comes, however long a call waits for it
    monkeypatch.setattr(verification, "SLOWER_BY", 10.0)  # nor does a claim on one come true, however often it is seen
    async with world_on(request.getfixturevalue(f"{database}_url")) as world:
        wanted = await once(world, name)
        await sent_twice_and_at_once(world, name, wanted)
        await answer_lost(world, name, wanted)
        await answer_of_a_tool_lost(world, name, wanted)
        await over_mcp_and_then_rest(world, name, wanted)
        if CHANGING[name].imperative:
            await one_id_two_inputs(world, name, wanted)


async def sent_twice_and_at_once(world: World, name: str, wanted: Counter[str]) -> None:
    """The second call, and others at the same time, get the first answer, and add nothing to the store."""
    raw = await world.fresh(CHANGING[name])
    answers: list[dict[str, Any]] = []

    async def twice() -> None:
        answers.extend([await world.call(name, **raw), await world.call(name, **raw)])

    assert await world.effect(twice) == wanted
    agree(name, answers)
    many = await world.fresh(CHANGING[name])

    async def at_once() -> None:
        answers[:] = await asyncio.gather(*(world.call(name, **many) for _ in range(WAYS)))

    assert await world.effect(at_once) == wanted
    agree(name, answers)


async def answer_lost(world: World, name: str, wanted: Counter[str]) -> None:
    """The client is gone within the body: nothing. After it, or before the answer: again, and it happened once."""
    raw = await world.fresh(CHANGING[name])
    assert await world.effect(lambda: lost(world.plane, name, raw, "within the body")) == {}
    for moment in ("after the body", "before the answer"):
        raw = await world.fresh(CHANGING[name])
        again: list[dict[str, Any]] = []

        async def asked(raw: dict[str, Any] = raw, moment: str = moment, again: list[Any] = again) -> None:
            await lost(world.plane, name, raw, moment)
            again.append(await world.call(name, **raw))

        found = await world.effect(asked)
        found.pop("token.renewed", None)  # a token whose secret nobody was told gets another
        assert found == wanted, moment
        if name == "plans.commit" and moment == "before the answer":
            assert again[0]["outcome"] == "already_committed"


async def answer_of_a_tool_lost(world: World, name: str, wanted: Counter[str]) -> None:
    """A client of MCP is gone after its body, or before the answer; what it asks again over REST happened once."""
    for moment in ("after the body", "before the answer"):
        raw = await world.fresh(CHANGING[name])

        async def asked(raw: dict[str, Any] = raw, moment: str = moment) -> None:
            await lost_tool(world.plane, CHANGING[name].tool, raw, moment)
            await world.call(name, **raw)

        found = await world.effect(asked)
        found.pop("token.renewed", None)
        assert found == wanted, moment


async def over_mcp_and_then_rest(world: World, name: str, wanted: Counter[str]) -> None:
    """Tools of /mcp/full, four at once, then the same over REST: one effect, one answer."""
    raw = await world.fresh(CHANGING[name])
    answers: list[dict[str, Any]] = []
    async with (
        httpx2.AsyncClient(headers=world.plane.headers(), timeout=60) as http,
        Client(streamable_http_client(world.plane.url + "/mcp/full", http_client=http)) as client,
    ):

        async def tool() -> dict[str, Any]:
            while True:
                envelope: Any = (await client.call_tool(CHANGING[name].tool, raw)).structured_content
                if envelope["ok"]:
                    found: dict[str, Any] = envelope["data"]
                    return found
                assert envelope["problem"]["reason"] == "CONFLICT", envelope
                await asyncio.sleep(envelope["problem"]["retry_after_s"])

        async def everywhere() -> None:
            answers.extend(await asyncio.gather(*(tool() for _ in range(4))))
            answers.append(await world.call(name, **raw))

        assert await world.effect(everywhere) == wanted
    agree(name, answers)


async def one_id_two_inputs(world: World, name: str, wanted: Counter[str]) -> None:
    """Two inputs under one id at once: one is executed and answers all of its callers, the other is refused."""
    one, other = await world.fresh(CHANGING[name]), await world.fresh(CHANGING[name])
    other["request_id"] = one["request_id"]
    answers: list[httpx.Response] = []

    async def both() -> None:
        answers.extend(await asyncio.gather(*(world.post(name, it) for it in [one, other] * (WAYS // 2))))

    assert await world.effect(both) == wanted
    by_input = [{it.status_code for it in answers[start::2]} for start in (0, 1)]
    assert sorted(by_input, key=min) == [{200}, {409}]
    refused = next(it.json() for it in answers if it.status_code == 409)
    assert refused["reason"] == "REQUEST_ID_REUSED"
    assert refused["field"] == "/request_id"


async def test_a_refusal_is_not_kept(database_url: str) -> None:
    """What was refused under an id is executed under it once the reason is gone."""
    async with world_on(database_url) as world:
        await refused_then_done(world)


async def refused_then_done(world: World) -> None:
    raw = {"name": "not-yet", "data": 1, "request_id": "early"}
    schema = {"type": "string"}
    await world.applied({"kind": "Channel", "metadata": {"name": "not-yet"}, "spec": {"dataschema": schema}})
    assert (await world.post("channels.publish", raw)).status_code == 422
    await world.applied({"kind": "Channel", "metadata": {"name": "not-yet"}, "spec": {}})
    first = await world.call("channels.publish", **raw)
    assert await world.call("channels.publish", **raw) == first
    assert first["position"] == "1"


def test_every_changing_operation_is_in_the_matrix() -> None:
    """The matrix is the catalogue: imperative, changing and proposing operations, none left out."""
    from controlplane.resources.catalogue import OPERATIONS

    reading = {it.name for it in OPERATIONS.values()} - set(CHANGING)
    assert all(OPERATIONS[it].method == "GET" and not OPERATIONS[it].imperative for it in reading)
