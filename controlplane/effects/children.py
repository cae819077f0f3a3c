"""What a child is made of: its parent's spec, and what the spawn says. Pure."""

from typing import TYPE_CHECKING, Any

import orjson

from controlplane.effects import scoping
from controlplane.mesh.traits import spawned
from controlplane.store import chains
from controlplane.store import statements as sql
from schemas.base import canonical

if TYPE_CHECKING:
    from controlplane.effects.turnref import Row, TurnRef


def born(
    turn: "TurnRef", uid: str, body: dict[str, Any], start: tuple[str, str], chain: str | None, now: float
) -> list["Row"]:
    """The rows of a child: its resource, its running side, what it is found by, its first message (id and body).

    It has the labels of its parent and counts for the same fleet, so that budgets of these hold for both together.
    """
    child = child_spec(turn.spec, body)
    name, generation = body["name"], body["generation"]
    told = canonical({"owner": turn.address, "generation": generation}).decode()
    made = (turn.namespace, name, uid, turn.agent, orjson.dumps(child).decode(), 1, generation, now, now, turn.agent)
    return [
        (sql.SPAWN, made, -1),
        (sql.SPAWN_AGENT, (now, uid), -1),
        (sql.SPAWN_LABELS, (uid,), -1),
        *spawned(uid, child),
        *([] if chain is None else [(chains.GIVE, (chain, uid), -1)]),
        *scoping.given(turn, body, uid, now),
        (sql.SPAWN_START, (start[0], start[1], now, uid), -1),
        (sql.SPAWN_EVENT, (uid, now, turn.namespace, name, turn.address, turn.turn_id, told), 1),
    ]


def child_spec(parent: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The parent's spec, with what the spawn says; grants are narrowed, never widened."""
    mandate = dict(parent.get("mandate") or {})
    held = mandate.get("grants") or []
    wanted = body.get("grants")
    mandate["grants"] = held if wanted is None else [grant for grant in held if _granted(grant, wanted)]
    if body.get("purpose") is not None:
        mandate["purpose"] = body["purpose"]
    child = {**parent, "mandate": mandate, "watches": []}
    if body.get("entrypoint") is not None:
        child["entrypoint"] = body["entrypoint"]
    if body.get("config") is not None:
        child["config"] = body["config"]
    return child


def _granted(held: dict[str, Any], wanted: list[dict[str, Any]]) -> bool:
    return any(it.get("effect") == held["effect"] and it.get("connection") == held.get("connection") for it in wanted)
