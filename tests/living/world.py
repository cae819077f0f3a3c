"""Records as the other rooms write them, put straight into a test's store."""

from typing import Any

import orjson
from sqlalchemy import insert

from controlplane.store.store import Store
from controlplane.store.tables import (
    AgentRow,
    ChannelMessageRow,
    ChannelRow,
    HostRow,
    JournalRow,
    ResourceRow,
    TurnRow,
)
from controlplane.store.unit import Unit
from schemas.principal import Call, Principal
from schemas.records import Role

NOW = 1_790_000_000.0
DIGEST = "sha256:" + "0" * 64
ADMIN = Principal("admin", "admin", ("*",))
ELSEWHERE = Principal("guest", "viewer", ("elsewhere",))


def call(operation: str, principal: Principal = ADMIN, now: float = NOW, **rest: Any) -> Call:
    return Call(principal=principal, operation=operation, now=now, **rest)


def operator(name: str, *namespaces: str, role: Role = "operator") -> Principal:
    return Principal(name, role, namespaces or ("default",))


async def _write(store: Store, *rows: tuple[Any, dict[str, Any]]) -> None:
    unit = Unit()
    for table, values in rows:
        unit.run(insert(table).values(**values), 1)
    assert await store.write(unit)


def _resource(kind: str, name: str, uid: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": kind,
        "namespace": "default",
        "name": name,
        "uid": uid,
        "labels": "{}",
        "spec": orjson.dumps(spec).decode(),
        "revision": 1,
        "generation": 1,
        "created_at": NOW,
        "updated_at": NOW,
    }


async def agent(
    store: Store, name: str, watches: list[str] | None = None, spec: dict[str, Any] | None = None, **row: Any
) -> str:
    """A declared agent with its running side; answers its uid."""
    uid = f"agt_{name}"
    running = {"generation": 1, "epoch": 0, "version": 0, "stopped": 0, "changed_at": NOW, **row}
    watched = [{"channel": channel, "start": "now"} for channel in watches or []]
    spec = {"code": {"digest": DIGEST}, "entrypoint": "a:A", "watches": watched, **(spec or {})}
    await _write(
        store,
        (ResourceRow, _resource("Agent", name, uid, spec)),
        (AgentRow, {"uid": uid, "namespace": "default", "name": name, **running}),
    )
    return uid


async def declared(store: Store, kind: str, name: str) -> None:
    """A resource whose running side is not there yet."""
    await _write(store, (ResourceRow, _resource(kind, name, f"new_{name}", {})))


async def channel(store: Store, name: str, messages: int = 0, dropped: int = 0, **spec: Any) -> str:
    """A channel with messages at 1 to `messages`, of which the first were dropped by retention."""
    uid = f"chn_{name}"
    running = {
        "uid": uid,
        "namespace": "default",
        "name": name,
        "next_position": messages + 1,
        "retention_s": 60.0,
        "mode": spec.get("mode", "broadcast"),
        "in_flight_max": spec.get("in_flight_max", 1),
        "backlog_max": spec.get("backlog_messages_max", 10_000),
        "attempts_max": spec.get("attempts_max", 1),
    }
    bodies = [
        (
            ChannelMessageRow,
            {
                "channel": uid,
                "position": position,
                "message_id": f"msg_{position}",
                "body": orjson.dumps({"id": f"msg_{position}", "data": {"n": position}}).decode(),
                "accepted_at": NOW,
            },
        )
        for position in range(dropped + 1, messages + 1)
    ]
    await _write(store, (ResourceRow, _resource("Channel", name, uid, spec)), (ChannelRow, running), *bodies)
    return uid


async def turn(store: Store, agent_uid: str, number: int, **row: Any) -> str:
    """A turn; later numbers started later."""
    turn_id = f"turn_{number:03}"
    values = {
        "turn_id": turn_id,
        "agent": agent_uid,
        "message_id": f"msg_{number}",
        "trigger": "message",
        "message": orjson.dumps({"id": f"msg_{number}", "data": number}).decode(),
        "outcome": "committed",
        "attempts": 1,
        "epoch": 1,
        "digest": "sha256:0",
        "started_at": NOW + number // 2,
        "finished_at": NOW + number,
        "cpu_ns": 1_500_000,
        "entries": 0,
        **row,
    }
    await _write(store, (TurnRow, values))
    return turn_id


async def entry(store: Store, turn_id: str, position: int, **row: Any) -> None:
    values = {
        "turn_id": turn_id,
        "branch": "0",
        "position": position,
        "kind": "send",
        "body": "{}",
        "recorded_at": NOW,
        **row,
    }
    await _write(store, (JournalRow, values))


async def host(store: Store, host_id: str, **row: Any) -> None:
    await _write(store, (HostRow, {"host_id": host_id, "node": "home", "created_at": NOW, **row}))


async def add(store: Store, table: Any, **values: Any) -> None:
    await _write(store, (table, values))
