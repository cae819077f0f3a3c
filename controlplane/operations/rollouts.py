"""Rollouts: a fleet's newer template reaches its agents in batches, and stops at the first that it fails for.

Of the agents that were made from the template since the fleet was written last, all that may not have
started are looked at, by the same conditions that everybody sees: whoever was begun first may fail
last. Those that have not started yet take places of the batch; one whose first turn failed, or whose
parked turn could not be proved, stops what is left. To write the fleet again, with older code or with
better, is the way on. Reads only, and keeps nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import text
from sqlmodel import Session

from controlplane.operations.conditions import of_agent
from controlplane.operations.observing import rows, seen_agents
from controlplane.operations.world import Known, Spec
from controlplane.store.unit import Unit
from schemas.base import short_id
from schemas.resource import Condition

# By indexes alone: who has a start before it, or a dead letter, for a first turn that fails leaves one.
UNSETTLED = text(
    "SELECT r.uid, r.namespace, r.name, r.generation FROM resource r LEFT JOIN agent a ON a.uid = r.uid"
    " WHERE r.owner = :uid AND r.deleted_at IS NULL AND r.template = :template"
    " AND r.updated_at >= (SELECT f.updated_at FROM resource f WHERE f.uid = :uid)"
    " AND (a.uid IS NULL OR a.generation < r.generation OR a.version = 0"
    " OR EXISTS (SELECT 1 FROM inbox i WHERE i.agent = r.uid AND i.\"trigger\" = 'start')"
    " OR EXISTS (SELECT 1 FROM dead_letter d WHERE d.agent = r.uid))"
    " ORDER BY r.ordinal"
)
TOLD = text("SELECT value FROM meta WHERE key = :key")
TELL = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
FORGET = "DELETE FROM meta WHERE key = ?"


class Address(NamedTuple):
    """A fleet, as it is told of."""

    uid: str
    namespace: str
    name: str
    generation: int


class Stop(NamedTuple):
    """Which agent stopped a rollout, and why; `told` when the feedback log has it."""

    agent: str
    reason: str
    detail: str
    told: bool


@dataclass(frozen=True)
class Rollout:
    """How many more agents may get the template now."""

    room: int
    waits_for: str = ""
    stop: Stop | None = None


def mark(spec: Spec) -> str:
    """The mark of a fleet's template: agents that carry another are made from another."""
    return short_id("template", spec["template"])


def rollout(session: Session, uid: str, fleet: Known, template: str) -> Rollout | None:
    """How far a fleet's rollout is; None for a fleet that has no batches."""
    batch = (fleet.spec.get("upgrade") or {}).get("batch")
    if batch is None:
        return None
    found = rows(session, UNSETTLED, uid=uid, template=template)
    waiting, failed = _judged(session, [Known("Agent", **row) for row in found])
    if failed is not None:
        name, condition = failed
        told = rows(session, TOLD, key=_key(uid))
        once = bool(told) and told[0]["value"] == str(fleet.generation)
        return Rollout(0, stop=Stop(name, condition.reason, condition.message, once))
    return Rollout(max(batch - len(waiting), 0), waiting[0] if waiting else "")


def _judged(session: Session, agents: Sequence[Known]) -> tuple[list[str], tuple[str, Condition] | None]:
    """Who has not started yet, and one that failed to. Who is stopped need not start."""
    seen = seen_agents(session, agents)
    waiting: list[str] = []
    for agent in agents:
        found = seen[agent.uid or ""]
        ready = of_agent(found)[0]
        if ready.status == "false":
            return waiting, (agent.name, ready)
        if ready.status == "unknown" and not found.stopped:
            waiting.append(agent.name)
    return waiting, None


def tell(unit: Unit, fleet: Address, stop: Stop, now: float) -> None:
    """The feedback event of a rollout that has stopped, once for each time that the fleet was written."""
    data = {"agent": stop.agent, "reason": stop.reason, "detail": stop.detail}
    unit.raw(TELL, [_key(fleet.uid), str(fleet.generation)], expect=1)
    unit.event("fleet.upgrade_stopped", kind="Fleet", namespace=fleet.namespace, name=fleet.name, now=now, data=data)


def forget(unit: Unit, uid: str) -> None:
    """The fleet is gone."""
    unit.raw(FORGET, [_key(uid)])


def _key(uid: str) -> str:
    return f"fleet.upgrade_stopped.{uid}"
