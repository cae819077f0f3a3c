"""A plane without processes: the real dispatcher, store, reconciler and verifier, and a gate of a few lines.

The gate here is ours, for tests alone: it writes with the real committer, removes agents by the
statements that the real gate uses, and runs no turns; `finish_starts` ends start turns as a host's
commit would leave them. What the real gate does is tested with the real gate.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import BaseModel
from sqlalchemy import text

from controlplane.feedback.cursors import Cursors
from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.feedback.log import handlers as feedback_handlers
from controlplane.guard import tokens
from controlplane.guard.vault import Vault
from controlplane.operations import discovery, handling
from controlplane.operations.commitment import Commitment
from controlplane.operations.living import code
from controlplane.operations.pipeline import Dispatcher
from controlplane.operations.proposing import Proposer
from controlplane.operations.reconciliation import Reconciler
from controlplane.operations.revert import Reverting
from controlplane.operations.verification import Verifier
from controlplane.protocols.registry import registry
from controlplane.store import statements
from controlplane.store.store import Store
from controlplane.wiring.routing import Routing
from schemas.base import turn_of
from schemas.ports import Handler
from schemas.principal import Principal
from schemas.protocols import Declaration

ADMIN = Principal("admin", "admin", ("*",))
STARTS = (
    "SELECT i.agent, i.message_id, i.body, a.namespace, a.name FROM inbox i JOIN agent a ON a.uid = i.agent"
    " WHERE i.\"trigger\" = 'start'"
)
ROUTING = Routing(registry())
SOURCE = "from ray_runtime import Agent\n\n\nclass Echo(Agent):\n    pass\n"


def agent(name: str, namespace: str = "default", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A manifest of an agent."""
    return {
        "kind": "Agent",
        "metadata": {"namespace": namespace, "name": name, "labels": labels or {}},
        "spec": {"code": {"files": {"echo.py": SOURCE}}, "entrypoint": "echo:Echo", **spec},
    }


def channel(name: str, namespace: str = "default", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "kind": "Channel",
        "metadata": {"namespace": namespace, "name": name, "labels": labels or {}},
        "spec": spec,
    }


def secret(name: str, namespace: str = "default", **values: Any) -> dict[str, Any]:
    return {"kind": "Secret", "metadata": {"namespace": namespace, "name": name}, "spec": {"values": values}}


def budget(name: str, namespace: str = "default") -> dict[str, Any]:
    spec = {"window": "day", "limits": {"effects": 1000}, "action": "hold"}
    return {"kind": "Budget", "metadata": {"namespace": namespace, "name": name}, "spec": spec}


def connection(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    whole = {"protocol": "http", "endpoint": "https://far.example.com", **spec}
    return {"kind": "Connection", "metadata": {"namespace": namespace, "name": name}, "spec": whole}


def route(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    whole = {"source": {"channel": "readings"}, "sink": {"channel": "alarms"}, **spec}
    return {"kind": "Route", "metadata": {"namespace": namespace, "name": name}, "spec": whole}


def fleet(name: str, replicas: int, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    template = {"labels": {"part": name}, "spec": agent("x", **spec)["spec"]}
    return {
        "kind": "Fleet",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"replicas": replicas, "template": template},
    }


@dataclass
class Gate:
    """Implements what the reconciler asks of a gate."""

    store: Store
    clock: Callable[[], float]
    heard: list[tuple[str, str]] = field(default_factory=list)
    deaf: bool = False

    async def control(self, verb: str, uid: str, argument: dict[str, Any]) -> dict[str, Any]:
        self.heard.append((verb, uid))
        if verb == "remove" and not self.deaf:
            from controlplane.mesh.membership import going, gone
            from controlplane.store.unit import Unit

            unit = Unit().rows(going(uid))
            for sql in statements.REMOVE:
                unit.raw(sql, [uid])
            await self.store.write(unit.rows(gone(uid, self.clock())))
        return {"ok": True}


class Plane:
    """Everything that declared things need, on one store, with a clock that tests turn."""

    def __init__(
        self, store: Store, agents_max: int = 1_000, protocols: Mapping[str, Declaration] | None = None
    ) -> None:
        self.store = store
        self.now = 1_800_000_000.0
        self.gate = Gate(store, self.clock)
        self.doorbell = LocalDoorbell()
        known = registry().declared if protocols is None else protocols
        self.proposer = Proposer(store, Vault(b"k" * 32), 86_400, agents_max, protocols=known, routing=ROUTING)
        self.reverting = Reverting(self.proposer)
        self.commitment = Commitment(self.proposer, self.reverting)
        self.handlers: dict[str, Handler] = {}
        self.dispatcher = Dispatcher(self.handlers, store, self.clock)
        self.handlers |= handling.handlers(self.proposer, self.reverting, self.commitment, self.doorbell)
        self.handlers |= discovery.handlers(self.dispatcher.call)
        self.handlers |= feedback_handlers(store, self.doorbell, Cursors(b"k" * 32))
        self.handlers |= tokens.handlers(store) | code.handlers(store)
        self.restart()

    def restart(self) -> None:
        """Forget whatever a loop holds in memory, as a new process would."""
        self.reconciler = Reconciler(self.store, self.gate, self.clock)  # type: ignore[arg-type]
        self.verifier = Verifier(
            self.store, self.dispatcher.call, self.reverting.propose, self.commitment.commit, self.clock
        )

    def clock(self) -> float:
        return self.now

    async def answer(self, operation: str, raw: Any = None, principal: Principal = ADMIN) -> BaseModel:
        return await self.dispatcher.call(principal, operation, {} if raw is None else raw)

    async def call(self, operation: str, principal: Principal = ADMIN, /, **raw: Any) -> dict[str, Any]:
        answered = await self.answer(operation, raw, principal)
        return answered.model_dump(mode="json")

    async def propose(self, *manifests: dict[str, Any], principal: Principal = ADMIN) -> dict[str, Any]:
        return await self.call("resources.propose", principal, manifests=list(manifests))

    async def commit(self, plan: dict[str, Any], principal: Principal = ADMIN, **rest: Any) -> dict[str, Any]:
        return await self.call("plans.commit", principal, plan_id=plan["plan_id"], **rest)

    async def apply(self, *manifests: dict[str, Any]) -> dict[str, Any]:
        """Propose, commit, and settle; answers the change."""
        committed = await self.commit(await self.propose(*manifests))
        assert committed["outcome"] == "committed", committed
        await self.settle()
        return await self.call("changes.get", change_id=committed["change_id"])

    async def delete(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        plan = await self.call(f"{kind.lower()}s.delete", namespace=namespace, name=name)
        committed = await self.commit(plan)
        await self.settle()
        return await self.call("changes.get", change_id=committed["change_id"])

    async def settle(self, *, starts: bool = True, ticks: int = 60) -> None:
        """Run both loops until neither has anything to do at this moment."""
        for _ in range(ticks):
            self.now += 0.01
            soon = await self.reconciler.tick() < 0.1
            if starts:
                await self.finish_starts()
            self._look_now()
            if await self.verifier.tick() >= 0.1 and not soon:
                return

    def _look_now(self) -> None:
        self.verifier._look_at.clear()

    async def finish_starts(
        self, outcome: str = "committed", problem: dict[str, Any] | None = None, only: Sequence[str] = ()
    ) -> None:
        """End every start message, or those of some agents, as a host would: the turn with its outcome, consumed."""
        from controlplane.store.unit import Unit

        unit = Unit()
        for row in await self.rows(STARTS):
            if only and row["name"] not in only:
                continue
            if problem is not None:
                letter = [row["agent"], row["namespace"], row["name"], row["message_id"], row["body"]]
                why = [problem["reason"], problem["detail"], None, self.now, "start", None]
                unit.raw(statements.DEAD_LETTER, [*letter, *why], 1)
            turn = turn_of(row["agent"], row["message_id"])
            told = orjson.dumps(problem).decode() if problem else None
            values = [turn, row["agent"], row["message_id"], "start", row["body"], outcome, 1, 1, ""]
            unit.raw(statements.TURN_OPEN, [*values, self.now, self.now, 0, 0, None, told, None], 1)
            unit.raw(statements.CONSUME, [row["agent"], row["message_id"]], 1)
            unit.raw("UPDATE agent SET version = version + 1 WHERE uid = ?", [row["agent"]], 1)
        await self.store.write(unit)

    async def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        return await self.store.read(
            lambda session: [dict(row) for row in session.connection().execute(text(sql), values).mappings()]
        )

    async def dump(self) -> str:
        """Every text of every table, to look for what must not be there."""
        found = []
        for table in ("resource", "plan", "change", "change_target", "claim", "event", "accepted", "label", "inbox"):
            found.append(repr(await self.rows(f"SELECT * FROM {table}")))
        return "\n".join(found)


Act = Callable[[Plane], Awaitable[None]]
