"""Several agents of a call: which match, and what came of each.

All selectors that are given must match, within one namespace, so that nobody selects what they do not
reach; who drains a node reaches all. What came of each is read from the change: its claims' verdicts, and
which steps are so.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import exists, text
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from controlplane.operations.carrying import STOPPED, WHERE
from controlplane.operations.observing import rows
from controlplane.operations.oneshots import unpacked
from controlplane.store.tables import AgentRow, ClaimRow, HostRow, LabelRow, ResourceRow
from schemas.moving import AGENTS_MAX, SHOWN_MAX, Migrated, MigrateInput, MovedAgent, Selection
from schemas.ports import GatePort
from schemas.problem import Refusal

CHANGE = text("SELECT undo, steps, batch FROM change WHERE change_id = :change_id")
ASKED_MAX = 10  # of how many the gate is asked why they wait
_ORDER = {"missed": 0, "waiting": 1, "superseded": 2, "not_begun": 3, "moved": 4}


class Chosen(NamedTuple):
    """An agent that matches, and where it is."""

    namespace: str
    name: str
    uid: str
    generation: int
    owner: str | None
    placement: str | None


class Outcome(NamedTuple):
    """What came of one, and the gate's name of it."""

    uid: str
    shown: MovedAgent


def chosen(session: Session, given: MigrateInput) -> list[Chosen]:
    """Who matches, by name; one more than may be, where there are too many. Who has no running side is not there."""
    resource: Any = ResourceRow
    query = _agents().where(resource.namespace == given.namespace)
    if given.name is not None:
        query = query.where(resource.name == given.name)
    if given.fleet is not None:
        fleet: Any = aliased(ResourceRow)
        named = (fleet.kind == "Fleet", fleet.namespace == given.namespace, fleet.name == given.fleet)
        owner = select(fleet.uid).where(*named, fleet.deleted_at.is_(None))
        query = query.where(resource.owner.in_(owner))
    if given.from_host is not None:
        query = query.where(col(AgentRow.owner) == given.from_host)
    if given.node is not None:
        query = query.where(_at(given.node))
    for key, value in (given.labels or {}).items():
        label: Any = aliased(LabelRow)
        of = (label.kind == "Agent", label.namespace == resource.namespace, label.name == resource.name)
        query = query.where(exists().where(*of, label.key == key, label.value == value))
    return [Chosen(*row) for row in session.exec(query.order_by(resource.name).limit(AGENTS_MAX + 1))]


def at_node(session: Session, node: str) -> list[Chosen]:
    """Who is on a node, of all namespaces, by name; one more than may be, where there are too many."""
    query = _agents().where(_at(node)).order_by(col(ResourceRow.namespace), col(ResourceRow.name))
    return [Chosen(*row) for row in session.exec(query.limit(AGENTS_MAX + 1))]


def _agents() -> Any:
    resource: Any = ResourceRow
    agent: Any = AgentRow
    columns = (resource.namespace, resource.name, resource.uid, resource.generation, agent.owner, agent.placement)
    query = select(*columns).join(agent, agent.uid == resource.uid)  # type: ignore[call-overload]
    return query.where(resource.kind == "Agent", resource.deleted_at.is_(None))


def _at(node: str) -> Any:
    hosts = select(HostRow.host_id).where(HostRow.node == node, col(HostRow.ended_at).is_(None))
    return col(AgentRow.owner).in_(hosts)


def outcomes(session: Session, change_id: str) -> list[Outcome]:
    """What came of each agent of a change, in the order of its steps."""
    change = rows(session, CHANGE, change_id=change_id)[0]
    _, acts = unpacked(change["undo"])
    steps = orjson.loads(change["steps"])
    claims = session.exec(select(ClaimRow).where(ClaimRow.change_id == change_id))
    found = {int(it.claim_id[1:]): it for it in claims}
    at = {row["uid"]: row for row in rows(session, WHERE, uids=[it.uid for it in acts])}
    begun, listed = change["batch"], []
    for index, act in enumerate(acts):
        here = at.get(act.uid, {"owner": None, "placement": None})
        state = _state(steps[index], found[index], begun)
        begun -= state in ("waiting", "missed")
        from_host = act.told["from_host"] or None
        to_host = act.told["to_host"] or (here["owner"] or here["placement"] if state == "moved" else None)
        shown = MovedAgent(name=act.name, state=state, from_host=from_host, to_host=to_host, waits_for=None)
        listed.append(Outcome(act.uid, shown))
    return listed


def _state(so: bool, claim: ClaimRow, room: int) -> Any:
    if claim.verdict == "unverifiable":
        return "not_begun" if claim.observed and orjson.loads(claim.observed) == STOPPED else "superseded"
    if claim.verdict == "missed":
        return "missed"
    return "moved" if so or claim.verdict == "held" else "waiting" if room > 0 else "not_begun"


async def with_reasons(gate: GatePort, found: Sequence[Outcome]) -> list[MovedAgent]:
    """All of them, those that are not where they shall be first; the first that wait say why."""
    listed = sorted(found, key=lambda it: (_ORDER[it.shown.state], it.shown.name))
    shown = []
    for index, it in enumerate(listed):
        why = None
        if it.shown.state in ("waiting", "missed") and index < ASKED_MAX:
            why = await _why(gate, it.uid)
        shown.append(it.shown.model_copy(update={"waits_for": why}))
    return shown


async def _why(gate: GatePort, uid: str) -> str | None:
    try:
        found: str | None = (await gate.control("look", uid, {}))["why_awake"]
    except Refusal as refusal:
        return refusal.problem.detail
    return found


def answer(given: MigrateInput, selected: int, change_id: str | None, found: Sequence[MovedAgent]) -> Migrated:
    """The answer about several."""
    counts: Counter[str] = Counter(it.state for it in found)
    selection = Selection(
        selected=selected,
        **{state: counts[state] for state in _ORDER},
        items=list(found[:SHOWN_MAX]),
        shown=min(len(found), SHOWN_MAX),
        total=len(found),
    )
    return Migrated(
        namespace=given.namespace,
        name=None,
        moved=counts["moved"] == len(found),
        from_host=given.from_host,
        to_host=given.to_host,
        epoch=0,
        waits_for=next((it.waits_for for it in found if it.waits_for), None),
        change_id=change_id,
        selection=selection,
    )
