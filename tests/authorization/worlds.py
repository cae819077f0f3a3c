"""Worlds that are the same to who reaches `default`, and differ in everything that is foreign.

The full one holds a namespace `elsewhere` with agents, fleets, channels, secrets, code, plans, changes,
turns, tokens, hosts, dead letters and kept answers, most of them under the names that `default` uses
too; the bare one holds none of it. A change over two namespaces is in both, with another far half.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import text

from controlplane.effects import controls
from controlplane.guard import tokens
from controlplane.resources.catalogue import OPERATIONS
from controlplane.store import external, offers, queues, statements
from controlplane.store.packed import pack
from controlplane.store.unit import Unit
from schemas.base import turn_of
from schemas.offers import Offered
from schemas.principal import PLANE, Call, Principal
from schemas.records import TokenCreateInput
from tests.api.plane import Plane, in_process, listening
from tests.living import world as records

SETTLE_S_MAX = 60
ROOT = Principal("root", "admin", ("*",))
ABROAD = Principal("op", "operator", ("elsewhere",))  # of the name that an operator of `default` has
DEAD = 7_000_000_000_123_456  # the id of what was given up elsewhere
HIDDEN = {"hidden.py": "from ray_runtime import Agent\n\n\nclass Hidden(Agent):\n    pass\n"}
OURS = {"ours.py": "from ray_runtime import Agent\n\n\nclass Ours(Agent):\n    pass\n"}
ISSUED: dict[str, dict[str, Any]] = {
    "viewer": {"principal": "eye", "role": "viewer", "namespaces": ["default"]},
    "operator": {"principal": "op", "role": "operator", "namespaces": ["default"]},
    "admin": {"principal": "chief", "role": "admin", "namespaces": ["default"]},
    "agent": {"principal": "self", "role": "agent", "namespaces": ["default"], "agent": "echo"},
    "viewer of two": {"principal": "eye", "role": "viewer", "namespaces": ["default", "second"]},
    "operator of two": {"principal": "op", "role": "operator", "namespaces": ["default", "second"]},
    "admin of two": {"principal": "chief", "role": "admin", "namespaces": ["second", "default"]},
    "viewer of all": {"principal": "eye", "role": "viewer", "namespaces": ["*"]},
    "operator of all": {"principal": "op", "role": "operator", "namespaces": ["*"]},
    "admin of all": {"principal": "chief", "role": "admin", "namespaces": ["*"]},
    "victim": {"principal": "victim", "role": "viewer", "namespaces": ["default"]},
}


def manifest(kind: str, name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """A manifest of a kind, from the example in the catalogue."""
    example: dict[str, Any] = OPERATIONS[f"{kind.lower()}s.propose"].example["manifest"]
    labels = example["metadata"].get("labels", {})
    return {
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {**example["spec"], **spec},
    }


class World:
    """A plane, its tokens, and what in it can be named: `own` ids, and `foreign` ones."""

    def __init__(self, plane: Plane, client: httpx.AsyncClient) -> None:
        self.plane, self.client = plane, client
        self.parts, self.store = plane.parts, plane.store
        self.own: dict[str, Any] = {}
        self.foreign: dict[str, Any] = {}

    async def call(self, operation: str, principal: Principal = ROOT, /, **raw: Any) -> dict[str, Any]:
        output = await self.parts.dispatcher.call(principal, operation, raw)
        return output.model_dump(mode="json")

    async def propose(self, *manifests: dict[str, Any], principal: Principal = ROOT) -> str:
        plan_id: str = (await self.call("resources.propose", principal, manifests=list(manifests)))["plan_id"]
        return plan_id

    async def apply(self, *manifests: dict[str, Any], principal: Principal = ROOT, settle: bool = True) -> str:
        """Propose, commit, and wait until the change is done; its id."""
        plan_id = await self.propose(*manifests, principal=principal)
        change_id: str = (await self.call("plans.commit", principal, plan_id=plan_id))["change_id"]
        if settle:
            await self.settle(change_id)
        return change_id

    async def settle(self, change_id: str) -> None:
        """Wait until the change is done; agents start as a host would have started them."""
        limit = time.monotonic() + SETTLE_S_MAX
        while not (await self.call("changes.get", change_id=change_id))["done"]:
            assert time.monotonic() < limit
            await self.start_agents()
            await asyncio.sleep(0.01)

    async def rest(self) -> None:
        """Wait until every change is done."""
        for item in (await self.call("changes.list", limit=500))["items"]:
            await self.settle(item["change_id"])

    async def start_agents(self) -> None:
        """End each start message with its turn, long ago, so that no summary ever tells of it."""
        unit = Unit()
        query = "SELECT agent, message_id, body FROM inbox WHERE \"trigger\" = 'start'"
        for agent, message, body in await self.rows(query):
            turn = turn_of(agent, message)
            ended = [turn, agent, message, "start", body, "committed", 1, 1, "", 0.0, 0.0, 0, 0, None, None, None]
            unit.raw(statements.TURN_OPEN, ended, 1)
            unit.raw(statements.CONSUME, [agent, message], 1)
            unit.raw("UPDATE agent SET version = version + 1 WHERE uid = ?", [agent], 1)
        await self.store.write(unit)

    async def rows(self, sql: str) -> list[Any]:
        return await self.store.read(lambda session: list(session.connection().execute(text(sql)).all()))

    async def issue(self, label: str, given: dict[str, Any], ago_s: float = 0) -> None:
        create = tokens.handlers(self.store)["tokens.create"]
        made: Any = await create(
            Call(PLANE, "tokens.create", time.time() - ago_s), TokenCreateInput.model_validate(given)
        )
        self.plane.tokens[label], self.plane.token_ids[label] = made.token, made.token_id

    def principal(self, label: str) -> Principal:
        given = ISSUED[label]
        return Principal(given["principal"], given["role"], tuple(given["namespaces"]), given.get("agent"))


@asynccontextmanager
async def standing(url: str, *, full: bool, served: bool = False) -> AsyncIterator[World]:
    """A world that has come to rest; in process, or `served` on a real port."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "PATIENCE_S", 0.05)  # no host ever comes here, so nobody waits for one
        if served:
            async with listening(url) as plane, httpx.AsyncClient(base_url=plane.url, timeout=60) as client:
                yield await _built(World(plane, client), full=full)
            return
        async with in_process(url) as (plane, client):
            client.headers.pop("Authorization")
            yield await _built(World(plane, client), full=full)


async def _built(world: World, *, full: bool) -> World:
    for label, given in ISSUED.items():
        await world.issue(label, given)
    await world.issue("expired", {**ISSUED["admin of all"], "expires_in_s": 60}, ago_s=3_600)
    await world.issue("revoked", ISSUED["admin of all"])
    await world.call("tokens.revoke", token_id=world.plane.token_ids["revoked"])
    await _ours(world)
    await (_theirs(world) if full else _nothing(world))
    await _rest_of_ours(world)
    await _marks(world)
    return world


async def _ours(world: World) -> None:
    """What is in `default` and `second`, one thing after the other."""
    op = world.principal("operator")
    await world.apply(manifest("Agent", "echo"), principal=op)
    change_id = await world.apply(manifest("Channel", "reports"), principal=op)
    await world.apply(manifest("Fleet", "echoes", replicas=1), principal=op)
    await world.apply(manifest("Secret", "inventory"), manifest("Connection", "billing"), principal=op)
    await _offer(world, "default", "billing")
    await world.apply(manifest("Budget", "models"), principal=op)
    for name in ("readings", "alarms"):  # or the plan makes them, and has three claims whose order nothing decides
        await world.apply(manifest("Channel", name))
    await world.apply(manifest("Route", "alarms"), principal=op)
    await world.apply(manifest("Channel", "reports", "second"))
    await _held(world)
    await _question(world)
    await _asked(world, "msg_1", "default", "echo")
    await world.call("agents.send", op, name="echo", data="hello")
    for number in range(3):
        await world.call("channels.publish", op, name="reports", data=number)
    ours = await world.call("code.put", op, files=OURS)
    await _host(world, "h-ours", "default")
    await _host(world, "h-ended", "default", ended_at=1.0)
    await _dead_letter(world, "default", "echo")
    await _delayed(world, "msg_1", "default")
    invited = await world.call("invitations.create", op, name="echo", to_namespace="guests", request_id="ours")
    await world.call(
        "discovery.register", world.principal("operator"), name="far-judge", purpose="judges", lease_s=86_400
    )
    turns = await world.call("turns.list", op, name="echo")
    world.own = {
        "change_id": change_id,
        "plan_id": (await world.call("changes.get", change_id=change_id))["plan_id"],
        "turn_id": turns["items"][0]["turn_id"],
        "token_id": world.plane.token_ids["victim"],
        "host_id": "h-ended",
        "digest": ours["digest"],
        "question_id": "question_1",
        "invitation_id": invited["invitation_id"],
    }


async def _held(world: World, turn_id: str = "turn_1", namespace: str = "default", name: str = "echo") -> None:
    """An effect that waits for an operator, in a turn of long ago that no summary tells of."""
    (uid,) = (await world.rows(f"SELECT uid FROM agent WHERE namespace = '{namespace}' AND name = '{name}'"))[0]
    unit = Unit()
    turn = [turn_id, uid, "msg_1", "message", "{}", "committed", 1, 1, "", 0.0, 0.0, 0, 1, None, None, None]
    body = '{"effect":"machine.read","connection":null,"arguments":{},"purpose":""}'
    unit.raw(statements.TURN_OPEN, turn, 1)
    unit.raw(statements.RECORD, [turn_id, "0", 0, "effect", body, None, None, None, 0.0, 0.0, None, None], 1)
    until = time.time() + 86_400
    unit.raw(external.HOLD, [f"await_{turn_id}", uid, turn_id, "0", 0, "turns.settle of machine.read", 0.0, until], 1)
    assert await world.store.write(unit)


async def _asked(world: World, message_id: str, namespace: str, name: str) -> None:
    """A question of an operator that has no answer."""
    (uid,) = (await world.rows(f"SELECT uid FROM agent WHERE namespace = '{namespace}' AND name = '{name}'"))[0]
    given = [message_id, f"{namespace}/{name}", uid, 0.0, time.time() + 86_400]
    assert await world.store.write(Unit().raw(statements.AWAIT_OPERATOR, given, 1))


async def _delayed(world: World, message_id: str, namespace: str) -> None:
    """A message for a channel, whose time is far."""
    body = f'{{"id":"{message_id}","data":"hidden"}}'
    given = ["Channel", namespace, "reports", message_id, None, None, None, body, time.time() + 86_400]
    assert await world.store.write(Unit().raw(queues.DELAY, given, 1))


async def _offer(world: World, namespace: str, name: str) -> None:
    """A tool that the far side of a connection offers."""
    named = f"kind = 'Connection' AND namespace = '{namespace}' AND name = '{name}'"
    (uid,) = (await world.rows(f"SELECT uid FROM resource WHERE {named}"))[0]
    example = OPERATIONS["connections.accept"].example
    schema = {"type": "object", "properties": {it: {"type": "number"} for it in example["roles"]}}
    body = pack(Offered(name=example["tool"], description=namespace, input_schema=schema).model_dump_json())
    seen = [example["tool"], example["digest"], body, 0.0, uid]
    assert await world.store.write(Unit().raw(offers.SEEN, seen, 1))


async def _question(
    world: World, question_id: str = "question_1", namespace: str = "default", name: str = "echo"
) -> None:
    """A question that waits for a person, in the turn of the held effect."""
    (uid,) = (await world.rows(f"SELECT uid FROM agent WHERE namespace = '{namespace}' AND name = '{name}'"))[0]
    turn_id, until = question_id.replace("question", "turn"), time.time() + 86_400
    body = '{"choices":null,"deadline_s":86400,"question":"hidden?"}'
    unit = Unit()
    unit.raw(statements.RECORD, [turn_id, "0", 1, "question", body, None, None, None, 0.0, None, None, None], 1)
    given = [question_id, uid, turn_id, "0", 1, "question", "a person", "", "", 0.0, until, question_id]
    unit.raw(statements.AWAIT, given, 1)
    assert await world.store.write(unit)


async def _theirs(world: World) -> None:
    """What is in `elsewhere`, made by an operator who is called as ours, and by an admin of all."""
    put = await world.call("code.put", ABROAD, files=HIDDEN, request_id="shared")
    code = {"code": {"digest": put["digest"]}, "entrypoint": "hidden:Hidden"}
    await world.apply(manifest("Channel", "hidden", "elsewhere"), principal=ABROAD)
    await world.apply(manifest("Channel", "reports", "elsewhere"), principal=ABROAD)
    watching = [{"channel": "hidden"}]
    agent = manifest("Agent", "hidden", "elsewhere", **code, watches=watching, capabilities=["hidden"])
    agent["metadata"]["labels"] = {"hidden": "yes"}
    change_id = await world.apply(agent, principal=ABROAD)
    await world.apply(manifest("Agent", "echo", "elsewhere"))
    await world.apply(manifest("Fleet", "hiddens", "elsewhere", replicas=2), principal=ABROAD)
    await world.apply(manifest("Budget", "hidden", "elsewhere"))
    await world.apply(manifest("Route", "hidden", "elsewhere"), principal=ABROAD)
    await world.apply(manifest("Route", "alarms", "elsewhere"), principal=ABROAD)
    await world.apply(manifest("Secret", "hidden", "elsewhere"), manifest("Secret", "inventory", "elsewhere"))
    await world.apply(manifest("Connection", "hidden", "elsewhere", secret={"name": "hidden", "key": "password"}))
    await _offer(world, "elsewhere", "hidden")
    await _asked(world, "msg_theirs", "elsewhere", "echo")
    await _delayed(world, "msg_theirs", "elsewhere")
    granted = {"purpose": "hidden", "grants": [{"effect": "http.request", "connection": "hidden"}]}
    await world.apply(manifest("Agent", "granted", "elsewhere", mandate=granted), principal=ABROAD)
    await world.apply(manifest("Agent", "unborn", "elsewhere"), settle=False)  # stays open
    names = {"namespace": "elsewhere", "request_id": "shared"}
    for number in range(5):
        await world.call("agents.send", ABROAD, namespace="elsewhere", name="hidden", data=number)
        await world.call("channels.publish", ABROAD, namespace="elsewhere", name="reports", data=number)
    hidden = {"namespace": "elsewhere", "name": "hidden", "budget": {"turns": 5}, "intent": "hidden"}
    chain = await world.call("agents.send", ABROAD, **hidden, data=9)
    for operation in ("agents.send", "channels.publish", "agents.suspend", "agents.stop", "agents.wake"):
        await world.call(operation, ABROAD, **names, name="echo" if operation.startswith("agents") else "reports")
    await world.call("channels.join", ABROAD, **names, name="reports", agent="echo")
    await _host(world, "h-theirs", "elsewhere")
    await _host(world, "h-warm", None)
    await _dead_letter(world, "elsewhere", "hidden", id=DEAD)
    await _held(world, "turn_hidden", "elsewhere", "hidden")
    await _question(world, "question_hidden", "elsewhere", "hidden")
    await _timer(world, "elsewhere", "hidden")
    await world.issue("theirs", {"principal": "op", "role": "operator", "namespaces": ["elsewhere"]})
    await world.issue("half theirs", {"principal": "op", "role": "viewer", "namespaces": ["default", "elsewhere"]})
    invited = {"namespace": "elsewhere", "name": "hidden", "to_namespace": "guests"}
    invitation = await world.call("invitations.create", ABROAD, **invited)
    for name in ("hidden", "far-judge"):
        await world.call(
            "discovery.register", ABROAD, namespace="elsewhere", name=name, purpose="judges", lease_s=86_400
        )
    page = await world.call("agents.list", ABROAD, namespace="elsewhere", limit=1)
    world.foreign = {
        "change_id": change_id,
        "committed_plan_id": (await world.call("changes.get", change_id=change_id))["plan_id"],
        "plan_id": await world.propose(manifest("Channel", "hidden-too", "elsewhere"), principal=ABROAD),
        "turn_id": "turn_hidden",
        "question_id": "question_hidden",
        "invitation_id": invitation["invitation_id"],
        "token_id": world.plane.token_ids["theirs"],
        "host_id": "h-theirs",
        "chain": chain["message_id"],
        "dead_letter_id": str(DEAD),
        "half_token_id": world.plane.token_ids["half theirs"],
        "digest": put["digest"],
        "page": page["next_page"],
    }
    far = [manifest("Channel", f"far-{number}", "elsewhere") for number in range(3)]
    world.own["spanning"] = await world.apply(manifest("Channel", "span"), *far)
    world.own["spanning_plan"] = await world.propose(manifest("Channel", "span-too"), *far)


async def _nothing(world: World) -> None:
    far = manifest("Channel", "far", "void")
    world.own["spanning"] = await world.apply(manifest("Channel", "span"), far)
    world.own["spanning_plan"] = await world.propose(manifest("Channel", "span-too"), far)


async def _rest_of_ours(world: World) -> None:
    """More of ours after what is theirs, so that positions and pages have theirs in between."""
    op = world.principal("operator")
    world.own["middle"] = (await world.call("feedback.read", limit=500))["cursor"]
    await world.apply(manifest("Channel", "later"), principal=op)
    world.own["open_plan_id"] = await world.propose(manifest("Channel", "planned"), principal=op)


async def _marks(world: World) -> None:
    """Cursors and pages that an admin of all was given at this moment."""
    world.own["cursor"] = (await world.call("feedback.read", limit=500))["cursor"]
    world.own["changes_page"] = (await world.call("changes.list", limit=1))["next_page"]


async def _host(world: World, host_id: str, namespace: str | None, **row: Any) -> None:
    about = {"digest": None if namespace is None else "sha256:" + "1" * 64, "lease_until": time.time() + 3_600, **row}
    await records.host(world.store, host_id, namespace=namespace, pid=1, **about)


async def _timer(world: World, namespace: str, name: str) -> None:
    from controlplane.store.tables import TimerRow

    uid = (await world.call("agents.get", namespace=namespace, name=name))["metadata"]["uid"]
    timer = {"version": 1, "fired": 0, "due_at": time.time() + 86_400, "every_s": 60.0, "data": "null"}
    await records.add(world.store, TimerRow, agent=uid, name="hidden", **timer)


async def _dead_letter(world: World, namespace: str, name: str, **given: Any) -> None:
    from controlplane.store.tables import DeadLetterRow

    uid = (await world.call("agents.get", namespace=namespace, name=name))["metadata"]["uid"]
    body = orjson.dumps({"id": "msg_dead"}).decode()
    letter = {"message_id": "msg_dead", "body": body, "reason": "HANDLER_ERROR", "detail": "it raised", "at": 1.0}
    await records.add(world.store, DeadLetterRow, agent=uid, namespace=namespace, name=name, **letter, **given)
