"""What the matrix of repeated calls goes through: for each operation a fresh input, and all that it may change."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from sqlalchemy import text

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from controlplane.store import external, offers, statements
from controlplane.store.packed import pack
from controlplane.store.unit import Unit
from schemas.offers import Offered
from schemas.question import FOREVER
from tests.api.plane import Plane
from tests.conftest import SOAK
from tests.hostile.bystander import MCP, tool_call
from tests.living import world as records
from tests.operations.plane import agent, budget, channel, connection, fleet, route, secret

TABLES = (
    "resource", "plan", "change", "change_target", "claim", "agent", "inbox", "awaiting", "subscription",
    "channel_message", "token", "secret_value", "code", "accepted", "dead_letter", "turn", "host", "offer",
)  # fmt: skip
OF_THE_LOOPS = ("claim.", "change.done", "plane.", "turns.")  # told in their own time, whatever was called
COUNTED = " UNION ALL ".join(  # all in one look
    [f"SELECT '{it}', COUNT(*) FROM {it}" for it in TABLES] + ["SELECT type, COUNT(*) FROM event GROUP BY type"]
)
WAYS = 16 if SOAK else 8
# What proposes writes a plan, and what else changes says so in its declaration.
CHANGING = {it.name: it for it in OPERATIONS.values() if it.effect != "read" or it.method in ("POST", "DELETE")}
_numbers = itertools.count(1)


@dataclass
class World:
    """A plane, and one fresh thing after the other to act on."""

    plane: Plane
    client: httpx.AsyncClient
    pool: list[str] = field(default_factory=list)

    async def call(self, operation: str, **raw: Any) -> dict[str, Any]:
        answer = await self.post(operation, raw)
        assert answer.status_code == 200, (operation, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    async def post(self, operation: str, raw: dict[str, Any]) -> httpx.Response:
        """The answer, after as many waits as a CONFLICT asks for."""
        limit = time.monotonic() + 60
        while True:
            answer = await self.client.post(f"/v1/operations/{operation}/call", json=raw)
            if answer.status_code != 409 or answer.json()["reason"] != "CONFLICT" or time.monotonic() > limit:
                return answer
            await asyncio.sleep(answer.json()["retry_after_s"])

    async def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        return await self.plane.store.read(
            lambda session: [tuple(row) for row in session.connection().execute(text(sql), values)]
        )

    async def applied(self, *manifests: dict[str, Any]) -> str:
        """The change that made it so, once every row is there."""
        plan = await self.call("resources.propose", manifests=list(manifests))
        change_id: str = (await self.call("plans.commit", plan_id=plan["plan_id"]))["change_id"]
        limit = time.monotonic() + 60
        while not all(step["done"] for step in (await self.call("changes.get", change_id=change_id))["steps"]):
            assert time.monotonic() < limit, "the steps were not done"
            await asyncio.sleep(0.02)
        return change_id

    async def settled(self) -> None:
        """Until every step of every change is done."""
        limit = time.monotonic() + 60
        while any(b"false" in bytes(row[0], "utf-8") for row in await self.rows("SELECT steps FROM change")):
            assert time.monotonic() < limit, "the steps were not done"
            await asyncio.sleep(0.02)

    async def counted(self) -> Counter[str]:
        """How many records of each kind, and events of each type."""
        await self.settled()
        return Counter({kind: many for kind, many in await self.rows(COUNTED) if not kind.startswith(OF_THE_LOOPS)})

    async def effect(self, act: Callable[[], Awaitable[Any]]) -> Counter[str]:
        """What an act adds and takes away."""
        before = await self.counted()
        await act()
        after = await self.counted()
        return Counter({key: after[key] - before[key] for key in {*before, *after} if after[key] != before[key]})

    # Fresh inputs

    async def fresh(self, operation: Operation) -> dict[str, Any]:
        """An input that nothing was called with before."""
        n = next(_numbers)
        raw = await self._fresh(operation, n)
        if operation.imperative:
            raw["request_id"] = f"matrix-{n}"
        return raw

    async def _fresh(self, operation: Operation, n: int) -> dict[str, Any]:
        manifests = {
            "agents": agent(f"a{n}"), "channels": channel(f"c{n}"),
            "connections": connection(f"n{n}"), "fleets": fleet(f"f{n}", 2),
            "secrets": secret(f"s{n}", key=f"value {n}"), "budgets": budget(f"b{n}"),
            "routes": route(f"r{n}"),
        }  # fmt: skip
        if operation.verb == "propose":
            wanted = list(manifests.values())
            return {"manifests": wanted} if operation.noun == "resources" else {"manifest": manifests[operation.noun]}
        if operation.verb == "delete":
            await self.applied(manifests[operation.noun])
            return {"namespace": "default", "name": manifests[operation.noun]["metadata"]["name"]}
        return await INPUTS[operation.name](self, n)

    async def agent(self) -> str:
        """The name of an agent that nobody acted on; they are made together."""
        if not self.pool:
            self.pool = [f"pool-{next(_numbers)}" for _ in range(12)]
            await self.applied(*(agent(name) for name in self.pool))
        return self.pool.pop()

    async def named(self, _n: int, **more: Any) -> dict[str, Any]:
        return {"namespace": "default", "name": await self.agent(), **more}

    async def stopped(self, n: int) -> dict[str, Any]:
        named = await self.named(n)
        await self.call("agents.stop", **named)
        return named

    async def routing(self, n: int) -> dict[str, Any]:
        await self.applied(route(f"r{n}"))
        return {"namespace": "default", "name": f"r{n}"}

    async def replaying(self, n: int) -> dict[str, Any]:
        """A route whose channel had a message, and that was there before it."""
        await self.applied(channel(f"s{n}"), route(f"r{n}", source={"channel": f"s{n}"}))
        await self.call("channels.publish", namespace="default", name=f"s{n}", data={"n": n}, request_id=f"before-{n}")
        limit = time.monotonic() + 60
        while not await self.rows(
            "SELECT 1 FROM subscription s JOIN channel c ON c.uid = s.channel WHERE c.name = :name AND s.position > 0",
            name=f"s{n}",
        ):
            assert time.monotonic() < limit, "it was not delivered"
            await asyncio.sleep(0.02)
        return {"namespace": "default", "name": f"r{n}"}

    async def committing(self, n: int) -> dict[str, Any]:
        return {"plan_id": (await self.call("channels.propose", manifest=channel(f"c{n}")))["plan_id"]}

    async def reverting(self, n: int) -> dict[str, Any]:
        return {"change_id": await self.applied(channel(f"c{n}"))}

    async def publishing(self, n: int) -> dict[str, Any]:
        await self.applied(channel(f"c{n}"), agent(f"a{n}", watches=[{"channel": f"c{n}"}]))
        return {"namespace": "default", "name": f"c{n}", "data": {"n": n}, "key": "k"}

    async def joining(self, n: int) -> dict[str, Any]:
        await self.applied(channel(f"c{n}"))
        return {"namespace": "default", "name": f"c{n}", "agent": await self.agent()}

    async def leaving(self, n: int) -> dict[str, Any]:
        raw = await self.joining(n)
        await self.call("channels.join", **raw)
        return raw

    async def token(self, n: int) -> dict[str, Any]:
        return {"principal": f"bot-{n}", "role": "viewer", "namespaces": ["default"]}

    async def revoking(self, n: int) -> dict[str, Any]:
        return {"token_id": (await self.call("tokens.create", **await self.token(n)))["token_id"]}

    async def node(self, n: int) -> dict[str, Any]:
        """The one node, which takes agents until then."""
        await self.call("nodes.drain", node="local", undo=True)
        return {"node": "local", "reason": f"reason {n}"}

    async def draining(self, n: int) -> dict[str, Any]:
        """A host whose process is not there any more."""
        await records.host(self.plane.store, f"h{n}", namespace="default", digest="sha256:0")
        return {"host_id": f"h{n}"}

    async def settling(self, n: int) -> dict[str, Any]:
        """An effect in doubt, as a gate that died left it and the next one held it."""
        uid = (await self.rows("SELECT uid FROM agent WHERE name = :name", name=await self.agent()))[0][0]
        turn, body = f"turn_{n}", '{"effect":"machine.read","connection":null,"arguments":{},"purpose":""}'
        unit = Unit()
        open_turn = [turn, uid, f"msg_{n}", "message", "{}", "parked", 0, 1, "", 1.0, None, 0, 1, None, None, "{}"]
        unit.raw(statements.TURN_OPEN, open_turn, 1)
        unit.raw(statements.RECORD, [turn, "0", 0, "effect", body, None, None, None, 1.0, 2.0, None, None], 1)
        held = [f"await_{n}", uid, turn, "0", 0, "turns.settle of machine.read", 3.0, time.time() + 3600]
        unit.raw(external.HOLD, held, 1)
        assert await self.plane.store.write(unit)
        return {"turn_id": turn, "position": 0, "outcome": "succeeded", "result": n, "reason": "the far side has it"}

    async def answering(self, n: int) -> dict[str, Any]:
        """A question of a turn that is parked."""
        uid = (await self.rows("SELECT uid FROM agent WHERE name = :name", name=await self.agent()))[0][0]
        turn, body = f"turn_{n}", '{"choices":null,"deadline_s":null,"question":"?"}'
        unit = Unit()
        open_turn = [turn, uid, f"msg_{n}", "message", "{}", "parked", 0, 1, "", 1.0, None, 0, 1, None, None, "{}"]
        unit.raw(statements.TURN_OPEN, open_turn, 1)
        unit.raw(statements.RECORD, [turn, "0", 0, "question", body, None, None, None, 1.0, None, None, None], 1)
        asked = [f"question_{n}", uid, turn, "0", 0, "question", "a person", "", "", 3.0, FOREVER, f"question_{n}"]
        unit.raw(statements.AWAIT, asked, 1)
        assert await self.plane.store.write(unit)
        return {"question_id": f"question_{n}", "answer": {"n": n}}

    async def redriving(self, n: int) -> dict[str, Any]:
        """A letter of an agent that is there."""
        name = await self.agent()
        letter = ["default", name, f"msg_dead_{n}", '{"id":"msg_dead","data":1}', "HANDLER_ERROR", "it raised", 1.0]
        sql = "INSERT INTO dead_letter (namespace, name, message_id, body, reason, detail, at) VALUES (?,?,?,?,?,?,?)"
        assert await self.plane.store.write(Unit().raw(sql, letter, 1))
        return {"namespace": "default", "name": name}

    async def delaying(self, n: int) -> dict[str, Any]:
        """A message whose time is far."""
        name = await self.agent()
        sent = await self.call("agents.send", name=name, data=n, delay_s=3_600)
        return {"namespace": "default", "kind": "Agent", "name": name, "message_id": sent["message_id"]}

    async def registering(self, n: int) -> dict[str, Any]:
        return {"namespace": "default", "name": f"member-{n}", "purpose": "judges", "lease_s": 600}

    async def registered(self, n: int) -> dict[str, Any]:
        """A member that is registered, by whoever calls."""
        await self.call("discovery.register", **await self.registering(n))
        return {"namespace": "default", "name": f"member-{n}"}

    async def inviting(self, n: int) -> dict[str, Any]:
        return {"namespace": "default", "name": await self.agent(), "to_namespace": "guests", "expires_in_s": 600 + n}

    async def invited(self, n: int) -> dict[str, Any]:
        return {"invitation_id": (await self.call("invitations.create", **await self.inviting(n)))["invitation_id"]}

    async def accepting(self, n: int) -> dict[str, Any]:
        """A tool as its gate has seen it."""
        await self.applied(connection(f"n{n}"))
        ((uid,),) = await self.rows("SELECT uid FROM resource WHERE kind = 'Connection' AND name = :it", it=f"n{n}")
        seen = Offered(name="order", input_schema={"type": "object", "properties": {"amount": {"type": "number"}}})
        row = ["order", seen.digest, pack(seen.model_dump_json()), 1.0, uid]
        assert await self.plane.store.write(Unit().raw(offers.SEEN, row, 1))
        return {"namespace": "default", "name": f"n{n}", "tool": "order", "digest": seen.digest}

    async def cancelling(self, n: int) -> dict[str, Any]:
        """A question that no host is there to answer."""
        named = await self.named(n)
        asked = await self.call("agents.ask", **named, data=n, timeout_s=0.05)
        return {**named, "message_id": asked["message_id"]}

    async def code(self, n: int) -> dict[str, Any]:
        return {"files": {"a.py": f"x = {n}\n"}}

    async def calling(self, n: int) -> dict[str, Any]:
        return {"name": "agents.send", "arguments": await self.named(n, data=n, request_id=f"inner-{n}")}


Fresh = Callable[[World, int], Awaitable[dict[str, Any]]]
INPUTS: dict[str, Fresh] = {
    "plans.commit": World.committing,
    "changes.revert": World.reverting,
    "agents.send": lambda world, n: world.named(n, data={"n": n}),
    "agents.ask": lambda world, n: world.named(n, data={"n": n}, timeout_s=0.2),
    "agents.cancel": World.cancelling,
    "agents.suspend": World.named,
    "agents.stop": World.named,
    "agents.wake": World.stopped,
    "agents.migrate": World.named,
    "routes.pause": World.routing,
    "routes.resume": World.routing,
    "routes.replay": World.replaying,
    "hosts.drain": World.draining,
    "nodes.drain": World.node,
    "turns.settle": World.settling,
    "questions.answer": World.answering,
    "code.put": World.code,
    "channels.publish": World.publishing,
    "channels.join": World.joining,
    "channels.leave": World.leaving,
    "channels.redrive": World.redriving,
    "channels.cancel_delayed": World.delaying,
    "discovery.register": World.registering,
    "discovery.renew": World.registered,
    "discovery.unregister": World.registered,
    "invitations.create": World.inviting,
    "invitations.revoke": World.invited,
    "connections.accept": World.accepting,
    "tokens.create": World.token,
    "tokens.revoke": World.revoking,
    "operations.call": World.calling,
}


def without(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what is told only once, or is of the moment."""
    return {key: value for key, value in answer.items() if key not in ("token", "as_of")}


async def lost(plane: Plane, operation: str, raw: dict[str, Any], moment: str) -> None:
    """Send a call over a socket, and be gone before its answer."""
    await _abandoned(plane, f"/v1/operations/{operation}/call", orjson.dumps(raw), {}, moment)


async def lost_tool(plane: Plane, tool: str, raw: dict[str, Any], moment: str) -> None:
    """The same for a tool of /mcp/full."""
    body = orjson.dumps(tool_call(tool, raw))
    await _abandoned(plane, "/mcp/full", body, MCP | {"Mcp-Name": tool}, moment)


async def _abandoned(plane: Plane, path: str, body: bytes, more: dict[str, str], moment: str) -> None:
    where = urlsplit(plane.url)
    headers = {
        "Host": where.netloc,
        "Content-Type": "application/json",
        "Authorization": f"Bearer {plane.tokens['admin']}",
        "Content-Length": str(len(body)),
        **more,
    }
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {it}\r\n" for name, it in headers.items()) + "\r\n"
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(head.encode() + (body[:-1] if moment == "within the body" else body))
    await writer.drain()
    if moment == "before the answer":
        await asyncio.wait_for(reader.read(1), 30)  # it is there, and nobody reads on
    writer.transport.abort()
