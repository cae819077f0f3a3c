"""Connections to a counting far side, agents that use them, and an operator who settles."""

import asyncio
import time
from typing import Any

import orjson
from sqlalchemy import insert

from controlplane.guard.vault import Vault
from controlplane.operations.living import settling
from controlplane.store.tables import ResourceRow, SecretValueRow
from controlplane.store.unit import Unit
from schemas.connection import connection_spec
from schemas.problem import Refusal
from schemas.settling import Settled, SettleInput
from tests.gate.counting import Counting
from tests.gate.process import KEY_OF_TESTS
from tests.gate.running import RunningGate
from tests.living import world

SECRET = "correct horse"
HONOURED = {"idempotency_header": "Idempotency-Key", "key_lifetime_s": 3600, "allow_private": True}
IGNORED = {"allow_private": True}
HELD = "SELECT turn_id, position, target, until FROM awaiting WHERE kind = 'effect' AND resolved_at IS NULL"


async def connected(gate: RunningGate, name: str, far: Counting, options: dict[str, Any], **spec: Any) -> None:
    """What the plane writes for a connection."""
    whole = connection_spec({"protocol": "http", "endpoint": f"{far.endpoint}/v1", "options": options, **spec})
    await put(gate, Unit(), "Connection", name, whole.model_dump(mode="json"))


async def secret(gate: RunningGate, name: str, value: str = SECRET) -> None:
    ref = f"sec_{name}"
    nonce, ciphertext = Vault(KEY_OF_TESTS).seal(ref, value)
    row = {"ref": ref, "namespace": "default", "nonce": nonce, "ciphertext": ciphertext, "created_at": 1.0}
    unit = Unit().run(insert(SecretValueRow).values(**row, bound_to=f"secret_{name}"))
    await put(gate, unit, "Secret", name, {"values": {"token": {"ref": ref, "mac": "m"}}})


async def put(gate: RunningGate, unit: Unit, kind: str, name: str, spec: dict[str, Any]) -> None:
    row = {
        "kind": kind, "namespace": "default", "name": name, "uid": f"{kind.lower()}_{name}", "labels": "{}",
        "spec": orjson.dumps(spec).decode(), "revision": 1, "generation": 1, "created_at": 1.0, "updated_at": 1.0,
    }  # fmt: skip
    assert await gate.store.write(unit.run(insert(ResourceRow).values(**row)))


def grants(*connections: str) -> dict[str, Any]:
    return {"mandate": {"grants": [{"effect": "http.request", "connection": it} for it in connections]}}


def request(connection: str | None, method: str = "POST", **more: Any) -> dict[str, Any]:
    """What a Noter is sent."""
    body = {"json": {"order": 1}} if method == "POST" and "text" not in more and "json" not in more else {}
    return {"effect": "http.request", "connection": connection, "method": method, "path": "orders", **body, **more}


async def settle(gate: RunningGate, turn_id: str, outcome: str, position: int = 0, **more: Any) -> Settled:
    """Say it, and again for as long as it may still be on its way."""
    handler = settling.handlers(gate.store, gate.client)["turns.settle"]
    given = SettleInput(turn_id=turn_id, position=position, outcome=outcome, reason="looked", **more)  # type: ignore[arg-type]
    limit = time.monotonic() + 20
    while True:
        try:
            answered = await handler(world.call("turns.settle", now=time.time()), given)
        except Refusal as refusal:
            if refusal.problem.reason not in ("STILL_SENDING", "NOT_READY", "IN_DOUBT") or time.monotonic() > limit:
                raise
            await asyncio.sleep(min(0.1, refusal.problem.retry_after_s or 0.1))
        else:
            assert isinstance(answered, Settled)
            return answered


async def refused(gate: RunningGate, turn_id: str, outcome: str, position: int = 0, **more: Any) -> str:
    """The reason that one attempt to settle is refused for."""
    handler = settling.handlers(gate.store, gate.client)["turns.settle"]
    given = SettleInput(turn_id=turn_id, position=position, outcome=outcome, reason="looked", **more)  # type: ignore[arg-type]
    try:
        await handler(world.call("turns.settle", now=time.time()), given)
    except Refusal as refusal:
        return refusal.problem.reason
    return "accepted"


async def held(gate: RunningGate) -> str:
    """The turn whose effect is held."""
    return str((await gate.until(HELD, bool))[0][0])
