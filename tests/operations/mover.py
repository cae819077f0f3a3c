"""A gate that moves agents and ends hosts by their records, and what a test about it looks at."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, text

from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.tables import HostRow
from controlplane.store.unit import Unit
from tests.operations.plane import Gate, Plane, agent

OWNERS = "SELECT name, owner FROM agent ORDER BY name"


@dataclass
class Mover(Gate):
    """A gate that moves agents and ends hosts by their records."""

    held: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    async def control(self, verb: str, uid: str, argument: dict[str, Any]) -> dict[str, Any]:
        if verb == "look":
            return {"ok": True, "why_awake": "it waits for effect 0"}
        if verb == "nodes":
            closed = await rows(self.store, "SELECT key FROM meta WHERE key LIKE 'node.closed.%'")
            names = [it["key"].removeprefix("node.closed.") for it in closed]
            return {"ok": True, "here": "local", "closed": names, "ray": []}
        if verb not in ("migrate", "drain", "drain_node"):
            return await super().control(verb, uid, argument)
        return await (self._migrate if verb == "migrate" else self._drain)(verb, uid, argument)

    async def _migrate(self, _: str, uid: str, argument: dict[str, Any]) -> dict[str, Any]:
        known = await rows(self.store, "SELECT name, owner, epoch FROM agent WHERE uid = :uid", uid=uid)
        if not known:
            raise refuse("NOT_FOUND", f"there is no agent of uid {uid}")
        row = known[0]
        found = {"ok": True, "moved": False, "from_host": row["owner"], "to_host": argument["to_host"]}
        found |= {"epoch": row["epoch"], "waits_for": None}
        if argument.get("dry_run"):
            return found
        self.told.append(row["name"])
        if row["name"] in self.refused:
            raise refuse("UNFIT_HOST", "it serves other code", field="/to_host")
        if row["name"] in self.held:
            return found | {"waits_for": "it waits for effect 0"}
        to = argument["to_host"]
        if row["owner"] is None:
            await self.write("UPDATE agent SET placement = ? WHERE uid = ?", [to, uid])
            return found
        if to is None and row["owner"] != argument["from_host"]:
            return found
        await self.write("UPDATE agent SET owner = ?, epoch = epoch + 1 WHERE uid = ?", [to or "h-2", uid])
        return found | {"moved": True, "to_host": to or "h-2", "epoch": row["epoch"] + 1}

    async def _drain(self, verb: str, name: str, argument: dict[str, Any]) -> dict[str, Any]:
        key, undo = f"node.closed.{name}", argument.get("undo")
        if not argument.get("dry_run"):
            closes = verb == "drain_node" and not argument.get("empty", True)
            self.told.append(f"close {name}" if closes else name)
            if verb == "drain":
                await self.write("UPDATE host SET ended_at = 1 WHERE host_id = ? AND ended_at IS NULL", [name])
            elif undo:
                await self.write("DELETE FROM meta WHERE key = ?", [key])
            else:
                await self.write("INSERT INTO meta VALUES (?, '') ON CONFLICT (key) DO NOTHING", [key])
        closed = bool(await rows(self.store, "SELECT 1 FROM meta WHERE key = :key", key=key))
        on = await rows(self.store, "SELECT 1 FROM host WHERE node = :node AND ended_at IS NULL", node=name)
        done = not closed or not on
        return {"ok": True, "done": done, "agents": 0, "waits_for": [], "draining": closed, "hosts": len(on)}

    async def write(self, sql: str, values: list[Any]) -> None:
        await self.store.write(Unit().raw(sql, values))


async def rows(store: Store, sql: str, **values: Any) -> list[dict[str, Any]]:
    return list(
        await store.read(lambda it: [dict(row) for row in it.connection().execute(text(sql), values).mappings()])
    )


async def five(plane: Plane) -> None:
    """Five agents on a host, and another host of the same code."""
    await plane.apply(*(agent(f"a-{n}", labels={"part": "a"}) for n in "vwxyz"))
    unit = Unit()
    for host in ("h-1", "h-2"):
        row = {"host_id": host, "node": "local", "namespace": "default", "digest": "d", "created_at": plane.now}
        unit.run(insert(HostRow).values(row))
    await plane.store.write(unit.raw("UPDATE agent SET owner = 'h-1'", []))


async def tick(plane: Plane, many: int = 3) -> None:
    for _ in range(many):
        plane.now += 0.01
        await plane.reconciler.tick()
        plane._look_now()
        await plane.verifier.tick()


async def owners(plane: Plane) -> dict[str, str]:
    return {row["name"]: row["owner"] for row in await plane.rows(OWNERS)}
