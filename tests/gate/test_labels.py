"""The label of what came from outside: what it leads to has it at every step, and nothing else has."""

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook

from controlplane.mesh.batches import batch
from controlplane.protocols.envelopes import from_http
from controlplane.protocols.http import labelled
from schemas.http import HttpRequest
from tests.gate.counting import Counting, counting
from tests.gate.far import connected, secret
from tests.gate.routed import POLL, apply, came, publish, read, routed
from tests.gate.running import RunningGate
from tests.operations.plane import route
from tests.protocols.database import Database, database

pytestmark = pytest.mark.anyio
KEY = b"a signing key of 24 byte"
UNTRUSTED = "untrusted"
GRANT = {"effect": "http.request", "connection": "out"}
SOURCE = """
from ray_runtime import Agent


class Desk(Agent):
    async def on_start(self, turn):
        turn.join("done", start="beginning")

    async def on_message(self, turn, envelope):
        n = envelope.data["n"]
        if envelope.continues:
            turn.publish("replies", {"n": n, "step": "continued"})
            return
        answer = await turn.ask("echo", {"n": n})
        turn.publish("replies", {"n": n, "step": "asked", "answer": answer.taint})
        turn.send("echo", {"n": n, "tell": "sent"})
        turn.send("echo", {"n": n, "tell": "delayed"}, delay_s=0.01)
        turn.request("echo", {"n": n})
        turn.spawn(f"child{n}", entrypoint="zoo:Child", config={"n": n})
        turn.continue_as({"n": n})

    async def on_reply(self, turn, reply):
        turn.publish("replies", {"n": reply.data["n"], "step": "replied", "answer": reply.taint})


class Child(Agent):
    async def on_start(self, turn):
        turn.publish("replies", {"n": self.config["n"], "step": "spawned"})


class Echo(Agent):
    async def on_message(self, turn, envelope):
        if "tell" in envelope.data:
            turn.publish("replies", {"n": envelope.data["n"], "step": envelope.data["tell"]})
        return envelope.data
"""
STEPS = {"asked", "sent", "delayed", "replied", "spawned", "continued"}
EVENT = '{"event": {"id": $envelope.id, "source": "/desk", "type": "told", "data": $}}'


@pytest.fixture
async def far(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Database]:
    (tmp_path / "far").mkdir()
    async with database("sqlite", tmp_path / "far", None) as found:
        yield found


async def hooked(gate: RunningGate, out: Counting) -> None:
    """A connection whose webhook leads to `orders`, one that events go out over, and the desk."""
    await secret(gate, "token", "whsec_" + base64.b64encode(KEY).decode())
    webhook = {"webhook": {"channel": "orders"}, "allow_private": True}
    await connected(gate, "hook", out, webhook, secret={"name": "token", "key": "token"})
    await connected(gate, "out", out, {"allow_private": True}, limits={"calls_per_s_max": 1000})
    code = await gate.code(SOURCE)
    mandate = {"purpose": "tells", "grants": [GRANT]}
    await gate.agent("echo", code, "Echo")
    await gate.agent("desk", code, "Desk", watches=[], mandate=mandate)


async def post(gate: RunningGate, data: Any) -> None:
    body, at = orjson.dumps(data), datetime.now(UTC)
    headers = {
        "webhook-id": "w1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(KEY).sign("w1", at, body.decode()),
        "content-type": "application/json",
    }
    await gate.client.post("default", "hook", headers, body)


def sink(mode: str) -> dict[str, Any]:
    told = {"method": "POST", "path": mode, "event_mode": mode}
    return {"effect": "http.request", "connection": "out", "arguments": told, "accept": "result.status == 200"}


async def test_a_webhook_is_labelled_to_the_last_sink_and_an_operator_s_message_is_not(
    quick_url: str, far: Database
) -> None:
    """Webhook, route, channel, agent, all that this does, and the CloudEvents that go out, in both modes."""
    async with counting() as out, routed(quick_url, far) as (gate, plane):
        await hooked(gate, out)
        await apply(
            plane,
            route("on", source={"channel": "orders"}, sink={"channel": "done"}),
            route("binary", source={"channel": "replies"}, sink=sink("binary"), transform=EVENT),
            route("structured", source={"channel": "replies"}, sink=sink("structured"), transform=EVENT),
        )
        await post(gate, {"n": 1})
        await publish(gate, "orders", 2, {"n": 2})
        await came(gate, "replies", 2 * len(STEPS))
        label = {1: UNTRUSTED, 2: None}
        assert {it["data"]["n"]: it.get("taint") for it in await read(gate, "done")} == label
        told = await read(gate, "replies")
        steps = {(it["data"]["n"], it["data"]["step"], it.get("taint")) for it in told}
        assert steps == {(n, step, taint) for n, taint in label.items() for step in STEPS}
        answers = {(it["data"]["n"], it["data"]["answer"]) for it in told if "answer" in it["data"]}
        assert answers == set(label.items())
        seen = await sent(gate, out, 2 * len(told))
        assert seen == {(mode, n, taint) for mode in ("binary", "structured") for n, taint in label.items()}


async def sent(gate: RunningGate, out: Counting, many: int) -> set[tuple[str, int, Any]]:
    """How, about what, and with which label the events came to the far side, once there are so many."""
    await gate.until("SELECT 1", lambda _: len(out.asked) >= many, 40)
    found = set()
    for it in out.asked:
        mode = it.path.rpartition("/")[2]
        body = orjson.loads(it.body)
        event = body if mode == "structured" else {"taint": it.headers.get("ce-taint"), "data": body}
        assert from_http(it.headers, it.body, orjson.loads).type == "told"
        found.add((mode, event["data"]["n"], event.get("taint")))
    return found


async def test_what_comes_in_over_a_connection_is_labelled_by_its_trust(quick_url: str, far: Database) -> None:
    """Polled rows, and what an effect of a route answers; an operator's message beside them is not."""
    async with routed(quick_url, far) as (gate, plane):
        update = "UPDATE item SET stock = stock - 1 WHERE id = :id"
        effect = {"effect": "sql.execute", "connection": "shop", "arguments": {"statement": update}}
        asked = {"source": {"channel": "orders"}, "transform": '{"parameters": {"id": item}}'}
        await apply(
            plane,
            route("rows", source={"poll": POLL}, sink={"channel": "done"}),
            route("sales", **asked, sink=effect, reply={"channel": "replies"}),
            route("plain", source={"channel": "orders"}, sink={"channel": "kept"}),
        )
        rows = await came(gate, "done", 9)
        assert {it.get("taint") for it in await read(gate, "done")} == {UNTRUSTED}, rows
        await publish(gate, "orders", 1, {"item": 9})
        assert await came(gate, "replies", 1) == [{"rows_changed": 1}]
        assert [it.get("taint") for it in await read(gate, "replies")] == [UNTRUSTED]
        await came(gate, "kept", 1)
        assert [it.get("taint") for it in await read(gate, "kept")] == [None]


def test_a_batch_has_the_label_of_any_of_its_envelopes() -> None:
    """One of them is enough; of none it has none."""
    plain, tainted = '{"id": "a", "data": {"taint": "x"}}', '{"id": "b", "taint": "untrusted"}'
    for bodies, label in (([plain, plain], None), ([plain, tainted], UNTRUSTED)):
        _, (_, _, _, text, *_), _ = batch("agent", "/c", ("a",), bodies, 1.0)
        assert orjson.loads(str(text)).get("taint") == label


def test_an_event_keeps_what_its_sender_says_unless_that_is_less() -> None:
    """What an agent calls its own event does not take a label away; without one it is left as it is."""
    event = {"id": "e", "source": "/s", "type": "t", "taint": "none of that", "data": 1}
    asked = HttpRequest.model_validate({"method": "POST", "event": event})
    for label, told in (("", "none of that"), (UNTRUSTED, UNTRUSTED)):
        found = labelled(asked, label).event
        assert found is not None
        assert found.model_dump() == {"specversion": "1.0", **event, "taint": told}
