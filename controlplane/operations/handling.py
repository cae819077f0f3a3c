"""The handlers of what every kind has, and of plans and changes: each binds a name to one stage.

Parsing a large source file takes a while, so admission runs in a thread. Everything else here is one
call of the function that does the work.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from controlplane.operations import changes, views
from controlplane.operations.admission import Admitted, AnyManifest, admit
from controlplane.operations.commitment import Commitment
from controlplane.operations.proposing import Proposer
from controlplane.operations.revert import Reverting
from controlplane.operations.visibility import absent_plan
from controlplane.operations.world import Wanted
from schemas import faults
from schemas.calls import (
    ChangeInput,
    ChangeList,
    ChangeWaitInput,
    ListInput,
    ListOutput,
    Named,
    PageInput,
    PlanInput,
    ProposeInput,
    ProposeOneInput,
)
from schemas.plan import Change, Plan
from schemas.ports import Doorbell, Handler
from schemas.principal import Call
from schemas.resource import Kind

KINDS: tuple[Kind, ...] = ("Agent", "Fleet", "Channel", "Connection", "Secret", "Budget", "Route")


def handlers(
    proposer: Proposer, reverting: Reverting, commitment: Commitment, doorbell: Doorbell
) -> Mapping[str, Handler]:
    """All handlers of declared things, by the names of their operations."""
    handling = Handling(proposer, reverting, commitment, doorbell)
    found: dict[str, Handler] = {
        "resources.propose": handling.propose,
        "plans.get": handling.get_plan,
        "plans.commit": commitment.commit,
        "changes.get": handling.get_change,
        "changes.list": handling.list_changes,
        "changes.wait": handling.wait,
        "changes.revert": handling.revert,
    }
    for kind in KINDS:
        found |= handling.of_kind(kind)
    return found


class Handling:
    """Declared things, as operations reach them."""

    def __init__(self, proposer: Proposer, reverting: Reverting, commitment: Commitment, doorbell: Doorbell) -> None:
        self._proposer = proposer
        self._reverting = reverting
        self._doorbell = doorbell
        self._store = proposer.store

    def of_kind(self, kind: Kind) -> dict[str, Handler]:
        """Get, list, propose and delete of one kind."""

        async def get(_: Call, given: Named) -> BaseModel:
            return await views.get(self._store, kind, given)

        async def page(call: Call, given: ListInput) -> ListOutput[Any]:
            return await views.list_page(self._store, kind, given, call.principal)

        async def propose(call: Call, given: ProposeOneInput[Any]) -> Plan:
            return await self._propose(call, [("/manifest", given.manifest)])

        async def delete(call: Call, given: Named) -> Plan:
            wanted = Wanted("delete", kind, given.namespace, given.name)
            return await self._proposer.propose(call.principal.name, Admitted((wanted,)), call.now)

        noun = f"{kind.lower()}s"
        return {f"{noun}.get": get, f"{noun}.list": page, f"{noun}.propose": propose, f"{noun}.delete": delete}

    async def propose(self, call: Call, given: ProposeInput) -> Plan:
        return await self._propose(call, [(f"/manifests/{i}", it) for i, it in enumerate(given.manifests)])

    async def _propose(self, call: Call, manifests: Sequence[tuple[str, AnyManifest]]) -> Plan:
        admitted = await asyncio.to_thread(admit, manifests, self._proposer.vault.mac, call.principal.namespaces)
        faults.at("plane.admitted")
        return await self._proposer.propose(call.principal.name, admitted, call.now)

    async def get_plan(self, call: Call, given: PlanInput) -> Plan:
        plan = await self._proposer.stored(given.plan_id, call.principal)
        if plan is None:
            raise absent_plan(given.plan_id)
        return plan

    async def revert(self, call: Call, given: ChangeInput) -> Plan:
        return await self._reverting.propose(call.principal, given.change_id, call.now)

    async def get_change(self, call: Call, given: ChangeInput) -> Change:
        return await changes.get_change(self._store, call.principal, given.change_id)

    async def list_changes(self, call: Call, given: PageInput) -> ChangeList:
        return await changes.list_changes(self._store, given, call.principal)

    async def wait(self, call: Call, given: ChangeWaitInput) -> Change:
        return await changes.wait_for_change(
            self._store, self._doorbell, call.principal, given.change_id, given.timeout_s
        )
