"""Operations that act at once are changes too (rule O3): who is to be moved or emptied, recorded until it is so.

Such a call is a plan that is committed as it is made: what each step does to whom, how it is seen that it
was done, and by when. One unit writes plan, change, claims and event; from there on a plane that dies
in between changes nothing, because the reconciler carries it on. The same asked again while the first is
under way is the first. One that asks for something else of the same agent, host or node ends the older
claim about it as unverifiable, and the rest of the older change stands.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import text
from sqlmodel import Session

from controlplane.operations.commitment import open_claims
from controlplane.operations.observing import rows
from controlplane.operations.recording import CHANGE, CLAIM, TARGET, judge, tell
from controlplane.resources.problems import refuse
from controlplane.store.packed import pack, unpack
from controlplane.store.store import Store
from controlplane.store.unit import Scalar, Unit
from schemas.base import digest, short_id
from schemas.plan import Claim, Expected, FieldChange, Plan, Preview, Probe, ReadEntry, Step, Undo
from schemas.principal import Call
from schemas.resource import Target

WITHIN_S = 60.0  # the longest turn that an agent's limits allow unless they say otherwise
ATTEMPTS_MAX = 5
SHOWN_MAX = 50
SUPERSEDED = "it was asked for otherwise meanwhile"
OPEN = text(
    "SELECT change_id, operation, namespace, undo FROM change WHERE done_at IS NULL AND operation IS NOT NULL"
    " ORDER BY committed_at"
)
PLAN = """INSERT INTO plan (plan_id, principal, namespace, body, decisions, created_at, expires_at, change_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_ACTIONS: Mapping[str, Any] = {
    "agents.migrate": "migrate",
    "hosts.drain": "drain",
    "nodes.drain": "drain",
    "routes.replay": "replay",
}


@dataclass(frozen=True)
class Act:
    """One step: what the gate is told to do, and how it is seen that it was done.

    `uid` and `generation` are an agent's, of a route those of its agent; hosts and nodes go by their name, and have
    none. Without a `verb` the gate is told nothing: what is to be done stands in the records that were written with it.
    It is begun once all of earlier stages are so.
    """

    kind: Any
    namespace: str
    name: str
    measure: str
    verb: str
    told: dict[str, Any]
    path: str
    before: Any
    after: Any
    uid: str = ""
    generation: int = 0
    expected: Any = True
    within_s: float | None = None
    fidelity: Any = "exact"
    stage: int = 0

    @property
    def target(self) -> Target:
        return Target(kind=self.kind, namespace=self.namespace, name=self.name)

    @property
    def subject(self) -> str:
        """What the gate calls it."""
        return self.uid or self.name

    @property
    def probe(self) -> Probe:
        if self.kind in ("Agent", "Route"):
            return Probe(
                operation=f"{self.kind.lower()}s.get", arguments={"namespace": self.namespace, "name": self.name}
            )
        return Probe(operation=f"{self.kind.lower()}s.list", arguments={})

    def step(self, index: int, operation: str, undo: Undo) -> Step:
        moves = "migrate" if self.kind == "Agent" else _ACTIONS[operation]
        action: Any = "open" if self.measure == "open" else moves
        change = FieldChange(path=self.path, before=self.before, after=self.after)
        return Step(index=index, action=action, target=self.target, changes=[change], undo=undo, probe=self.probe)

    def claim(self, index: int, within_s: float) -> Claim:
        return Claim(
            claim_id=f"c{index}",
            subject=self.target,
            measure=self.measure,
            expected=Expected(value=self.expected),
            fidelity=self.fidelity,
            basis="computed",
            verify_within_s=within_s if self.within_s is None else self.within_s,
            probe=self.probe,
        )


@dataclass(frozen=True)
class Wish:
    """What a call wants: its acts in their order, so many at once. `asked` is its input, as far as it decides."""

    namespace: str
    asked: Mapping[str, Any]
    acts: Sequence[Act]
    undo: Undo = "compensate"
    batch: int = 1
    afresh: bool = field(default=False)  # whether the same asked again is the same only where its acts are

    def steps(self, operation: str, most: int | None = None) -> list[Step]:
        return [it.step(index, operation, self.undo) for index, it in enumerate(self.acts[:most])]

    def claims(self, most: int | None = None) -> list[Claim]:
        """A batch has its time after the one before it."""
        batches = zip(self.acts[:most], self._batches(), strict=False)
        return [it.claim(n, WITHIN_S * nth) for n, (it, nth) in enumerate(batches)]

    def _batches(self) -> Iterator[int]:
        """The batch that each act is of, from one on; a stage begins with a new one."""
        nth, room, stage = 0, 0, -1
        for it in self.acts:
            if it.stage != stage or not room:
                nth, room, stage = nth + 1, self.batch, it.stage
            room -= 1
            yield nth


Beside = Callable[[str], Unit]


class Open(NamedTuple):
    """An operation's change that is not done."""

    change_id: str
    operation: str
    asked: Mapping[str, Any]
    acts: list[Act]

    def overtaken_by(self, claim: Claim, targets: set[Target]) -> bool:
        """Whether one of its claims ends with what is asked of these; what it does for a node ends with that node's."""
        of_node = (it.target for it in self.acts if it.kind == "Node")
        return claim.subject in targets or not targets.isdisjoint(of_node)


def unpacked(undo: bytes) -> tuple[Mapping[str, Any], list[Act]]:
    """What an operation's change keeps: what was asked, and its acts."""
    kept = orjson.loads(unpack(undo))
    return kept["asked"], [Act(**it) for it in kept["acts"]]


def preview(call: Call, wish: Wish, would: list[str]) -> Preview:
    """What it would be as a change; the first of its steps and claims."""
    return Preview(
        operation=call.operation,
        would=would,
        undo=wish.undo,
        steps=wish.steps(call.operation, SHOWN_MAX),
        claims=wish.claims(SHOWN_MAX),
    )


class OneShots:
    """Begins changes that operations make."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._one_at_a_time = asyncio.Lock()

    async def begin(self, call: Call, wish: Wish) -> str | None:
        """Its change, recorded from now on; None when there is nothing to do. Raises CONFLICT."""
        return await self.begin_seen(call, lambda _: (wish, None))

    async def begin_seen(self, call: Call, seen: Callable[[Session], tuple[Wish, Beside | None]]) -> str | None:
        """The same of what is seen at each attempt; beside it what is made, for the change's id, for the same unit."""

        def look(session: Session) -> tuple[Wish, Beside | None, str | None, list[tuple[str, Claim]]]:
            wish, beside = seen(session)
            return wish, beside, *_before(session, call.operation, wish)

        async with self._one_at_a_time:
            for _ in range(ATTEMPTS_MAX):
                wish, beside, known, ended = await self._store.read(look)
                if known is not None or not wish.acts:
                    return known
                plan, unit = begin_unit(call, wish, ended)
                change_id = short_id("chg", plan.plan_id)
                if beside is not None:
                    unit.add(beside(change_id))
                if await self._store.write(unit):
                    return change_id
        raise refuse("CONFLICT", "others did the same at the same time; try again", retry_after_s=0.2)


def _before(session: Session, operation: str, wish: Wish) -> tuple[str | None, list[tuple[str, Claim]]]:
    """The change that the same made already, if it is open; and what other open changes claim of its targets."""
    listed = [it for it in rows(session, OPEN) if it["namespace"] == wish.namespace]
    found = [Open(it["change_id"], it["operation"], *unpacked(it["undo"])) for it in listed]
    for it in found:
        same = it.operation == operation and it.asked == wish.asked
        if same and (not wish.afresh or it.acts == list(wish.acts)):
            return it.change_id, []
    return None, _overtaken(session, found, wish)


def _overtaken(session: Session, found: Sequence[Open], wish: Wish) -> list[tuple[str, Claim]]:
    """Open claims of older changes about what this one is about."""
    targets = {it.target for it in wish.acts}
    older = [it for it in found if not targets.isdisjoint(act.target for act in it.acts)]
    return [
        (it.change_id, claim)
        for it in older
        for claim in open_claims(session, it.change_id)
        if it.overtaken_by(claim, targets)
    ]


def begin_unit(call: Call, wish: Wish, ended: Sequence[tuple[str, Claim]]) -> tuple[Plan, Unit]:
    """The plan and its commit, in one; with it the end of what is overtaken."""
    kept = {"asked": dict(wish.asked), "acts": [asdict(it) for it in wish.acts]}
    plan = _plan(call, wish, kept)
    change_id, principal = short_id("chg", plan.plan_id), call.principal.name
    unit, text_of = Unit(), plan.model_dump_json()
    unit.raw(PLAN, [plan.plan_id, principal, wish.namespace, pack(text_of), pack(""), call.now, call.now, change_id], 1)
    steps = orjson.dumps([False] * len(plan.steps)).decode()
    undo = pack(orjson.dumps(kept).decode())
    head: list[Scalar] = [change_id, plan.plan_id, principal, wish.namespace, "keep", call.now]
    unit.raw(CHANGE, [*head, steps, undo, None, call.operation, wish.batch], 1)
    for act in {it.target: it for it in wish.acts}.values():
        unit.raw(TARGET, [change_id, act.kind, act.namespace, act.name, act.generation], 1)
    for claim in plan.claims:
        due_at = call.now + claim.verify_within_s
        unit.raw(CLAIM, [change_id, claim.claim_id, pack(claim.model_dump_json()), due_at, 1], 1)
    for older, claim in ended:
        judge(unit, older, claim, "unverifiable", SUPERSEDED, call.now)
    for namespace, subject in {it.namespace: it.target for it in reversed(wish.acts)}.items():
        many = sum(it.namespace == namespace for it in wish.acts)
        about = {"plan_id": plan.plan_id, "steps": many, "claims": many, "operation": call.operation}
        tell(unit, "change.committed", subject, change_id, call.now, about, principal)
    return plan, unit


def _plan(call: Call, wish: Wish, kept: Mapping[str, Any]) -> Plan:
    """Of the moment: the same asked anew is another plan, because who is where has no generation."""
    principal, claims = call.principal.name, wish.claims()
    read_set = [
        ReadEntry(kind="Agent", namespace=it.namespace, name=it.name, uid=it.uid, generation=it.generation)
        for it in wish.acts
        if it.kind == "Agent"
    ]
    sealed = digest([principal, call.operation, wish.namespace, kept, call.now])
    now = datetime.fromtimestamp(call.now, UTC)
    return Plan(
        plan_id=short_id("plan", sealed),
        principal=principal,
        namespace=wish.namespace,
        as_of=now,
        expires_at=now,
        digest=sealed,
        claims_digest=digest([it.model_dump(mode="json") for it in claims]),
        read_set=read_set,
        steps=wish.steps(call.operation),
        claims=claims,
    )
