"""From decisions to a stored plan: read the world, check, plan, keep. Changes nothing that is declared.

A plan is stored under the digest of what it rests on; whoever proposes the same on an unmoved read
set gets the stored plan, to the byte, until it expires. A secret's values are encrypted here, once
the plan stands, and stored unbound: they die with the plan unless it is committed (rule O7). The
same function proposes anew for a commit that came too late, from the decisions as they were kept.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from sqlmodel import Session, col, select

from controlplane.guard.vault import Vault
from controlplane.operations.admission import Admitted, Sealing, check
from controlplane.operations.code_notes import diverged, in_vain
from controlplane.operations.connecting import look_at
from controlplane.operations.planning import Planned, Write, make_plan
from controlplane.operations.routing import SAMPLE, completed, to_try
from controlplane.operations.routing_notes import notes
from controlplane.operations.snapshot import read_world
from controlplane.operations.visibility import within
from controlplane.operations.world import Wanted, World
from controlplane.protocols.mcp_allowed import Startable
from controlplane.protocols.registry import registry
from controlplane.resources.problems import refuse
from controlplane.store.packed import pack
from controlplane.store.store import Store
from controlplane.store.tables import PlanRow
from controlplane.store.unit import Scalar, Unit
from schemas import faults
from schemas.plan import Plan
from schemas.ports import Routing, Tried
from schemas.principal import PLANE, Principal
from schemas.protocols import Declaration

ATTEMPTS_MAX = 5
TRIED_MAX = 100  # results of samples that are remembered
_PLANS = PlanRow.__table__  # type: ignore[attr-defined]
_SHOWN = (_PLANS.c.body,)
_KEPT = (_PLANS.c.body, _PLANS.c.decisions, _PLANS.c.expires_at, _PLANS.c.change_id)
_NO_DECISIONS = '{"wanted":[],"writes":[],"members":[],"code":{}}'
KEEP = """INSERT INTO plan (plan_id, principal, namespace, body, decisions, created_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (plan_id) DO UPDATE SET body = excluded.body,
decisions = excluded.decisions, created_at = excluded.created_at, expires_at = excluded.expires_at
WHERE plan.change_id IS NULL AND plan.expires_at <= excluded.created_at"""

SEAL = """INSERT INTO secret_value (ref, namespace, nonce, ciphertext, created_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (ref) DO UPDATE SET expires_at = excluded.expires_at
WHERE secret_value.expires_at < excluded.expires_at"""


@dataclass(frozen=True)
class Kept:
    """A stored plan with what belongs to it; once it is committed, its decisions are none."""

    plan: Plan
    wanted: tuple[Wanted, ...]
    writes: tuple[Write, ...]
    members: tuple[dict[str, Any], ...]
    code: dict[str, dict[str, str]]
    expires_at: float
    change_id: str | None


@dataclass(frozen=True)
class Proposer:
    """Makes plans and keeps them."""

    store: Store
    vault: Vault
    plan_ttl_s: float = 86_400
    agents_max: int = 200_000
    currency: str = "EUR"
    unconfined: Callable[[], str | None] = lambda: None
    """Why no agent can be confined here; None when one can."""
    routing: Routing | None = None
    """What is known of filters, transforms and effects; without it routes are not looked at."""
    known: dict[str, list[Tried]] = field(default_factory=dict, compare=False, repr=False)
    """What came of samples that were tried lately."""
    protocols: Mapping[str, Declaration] = field(default_factory=lambda: registry().declared)
    startable: Startable = field(default_factory=Startable)
    """Which processes connections may start here."""

    async def propose(self, principal: str, admitted: Admitted, now: float, reverts: str | None = None) -> Plan:
        """The stored plan of these decisions; raises what its commit would raise."""
        if any(it.kind == "Connection" for it in admitted.wanted):  # not on the loop: others go on meanwhile
            await asyncio.to_thread(look_at, admitted.wanted, self.protocols)
        for _ in range(ATTEMPTS_MAX):
            world = await self.store.read(lambda session: _world(session, admitted, now))
            wanted = completed(admitted.wanted, world, self.routing)
            planned = self.planned(principal, admitted, wanted, world, now, reverts, await self.tried(wanted))
            kept = await self.kept(planned.plan.plan_id)
            if kept is not None and (kept.change_id is not None or kept.expires_at > now):
                if admitted.sealing and kept.change_id is None:
                    await self.store.write(self._sealed(admitted.sealing, now, kept.expires_at))
                return kept.plan
            unit = _keeping(planned, now, now + self.plan_ttl_s)
            unit.add(self._sealed(admitted.sealing, now, now + self.plan_ttl_s))
            if await self.store.write(unit):
                faults.at("plane.kept")
                return planned.plan
        raise refuse("CONFLICT", "others proposed the same at the same time; try again", retry_after_s=0.2)

    async def kept(self, plan_id: str, principal: Principal = PLANE) -> Kept | None:
        """A stored plan, if the principal may see it."""
        return await self.store.read(lambda session: read_kept(session, plan_id, principal))

    async def stored(self, plan_id: str, principal: Principal) -> Plan | None:
        """A stored plan alone, if the principal may see it."""
        return await self.store.read(lambda session: read_plan(session, plan_id, principal))

    async def tried(self, wanted: Sequence[Wanted]) -> dict[str, list[Tried]]:
        """What comes of the samples of routes; what was tried lately is not tried again."""
        found: dict[str, list[Tried]] = {}
        if self.routing is None:
            return found
        for name, spec in to_try(wanted, self.routing).items():
            if (known := self.known.get(name)) is None:
                known = await self.routing.tried(spec["filter"], spec["transform"], spec["samples"], SAMPLE)
                if len(self.known) >= TRIED_MAX:
                    self.known.clear()
                self.known[name] = known
            found[name] = known
        return found

    def check(self, wanted: Sequence[Wanted], world: World, tried: Mapping[str, Sequence[Tried]]) -> None:
        """Refuse what can not be here; the same for a proposal and for its commit."""
        of_plane = self.agents_max, self.currency, self.unconfined(), self.protocols, self.routing
        check(wanted, world, *of_plane, tried, self.startable)

    def planned(
        self,
        principal: str,
        admitted: Admitted,
        wanted: Sequence[Wanted],
        world: World,
        now: float,
        reverts: str | None,
        tried: Mapping[str, Sequence[Tried]],
    ) -> Planned:
        """The plan of the decisions in this world, not kept; `wanted` is what they come to here."""
        self.check(wanted, world, tried)
        told = [*notes(admitted.wanted, wanted, world, self.routing), *diverged(wanted, world), *in_vain(wanted)]
        return make_plan(principal, wanted, admitted.code, world, now, self.plan_ttl_s, reverts, told)

    def _sealed(self, sealing: Sequence[Sealing], now: float, expires_at: float) -> Unit:
        unit = Unit()
        for it in sealing:
            nonce, ciphertext = self.vault.seal(it.ref, it.value.get_secret_value())
            unit.raw(SEAL, [it.ref, it.namespace, nonce, ciphertext, now, expires_at])
        return unit


def _world(session: Session, admitted: Admitted, now: float) -> World:
    return read_world(session, admitted.wanted, admitted.code, admitted.reach, now)


def _keeping(planned: Planned, now: float, expires_at: float) -> Unit:
    plan = planned.plan
    decisions = {
        "wanted": [asdict(it) for it in planned.wanted],
        "writes": [asdict(it) for it in planned.writes],
        "members": planned.members,
        "code": planned.code,
    }
    body = pack(plan.model_dump_json())
    values: list[Scalar] = [
        plan.plan_id,
        plan.principal,
        plan.namespace,
        body,
        pack(orjson.dumps(decisions).decode()),
        now,
        expires_at,
    ]
    return Unit().raw(KEEP, values, expect=1)


def read_plan(session: Session, plan_id: str, principal: Principal = PLANE) -> Plan | None:
    """A stored plan, if the principal may see it."""
    row = _row(session, _SHOWN, plan_id, principal)
    return None if row is None else Plan.model_validate_json(row.body)


def read_kept(session: Session, plan_id: str, principal: Principal = PLANE) -> Kept | None:
    """A stored plan with its decisions, if the principal may see it."""
    row = _row(session, _KEPT, plan_id, principal)
    if row is None:
        return None
    decisions = orjson.loads(row.decisions or _NO_DECISIONS)
    return Kept(
        plan=Plan.model_validate_json(row.body),
        wanted=tuple(Wanted(**it) for it in decisions["wanted"]),
        writes=tuple(Write(**it) for it in decisions["writes"]),
        members=tuple({**it, "names": tuple(it["names"])} for it in decisions["members"]),
        code=decisions["code"],
        expires_at=row.expires_at,
        change_id=row.change_id,
    )


def _row(session: Session, columns: Sequence[Any], plan_id: str, principal: Principal) -> Any:
    """Plain columns: half of what a row of the ORM costs."""
    found = select(*columns).where(_PLANS.c.plan_id == plan_id, *within(principal, col(PlanRow.namespace)))
    return session.connection().execute(found).first()
