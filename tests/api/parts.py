"""A plane of these tests: every room real and in one process, but no Ray, so that no turn ever runs."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from controlplane.economy.rating import RateCard
from controlplane.effects.client import GateClient
from controlplane.effects.gate import Gate
from controlplane.feedback import log
from controlplane.feedback.cursors import Cursors
from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.guard import tokens
from controlplane.guard.vault import Vault
from controlplane.knowledge.embedding import Embedder
from controlplane.mesh.dataschema import data_fault
from controlplane.operations import discovery, doctor, handling, system, views
from controlplane.operations.commitment import Commitment
from controlplane.operations.living import (
    agents,
    channels,
    code,
    dead_letters,
    delayed,
    elsewhere,
    finding,
    hosts,
    inspection,
    invitations,
    invoices,
    members,
    moving,
    nodes,
    offers,
    performing,
    questions,
    routes,
    settling,
    topology,
    turns,
    usage,
)
from controlplane.operations.pipeline import Dispatcher
from controlplane.operations.proposing import Proposer
from controlplane.operations.reconciliation import Reconciler
from controlplane.operations.revert import Reverting
from controlplane.operations.verification import Verifier
from controlplane.protocols.registry import registry
from controlplane.resources.catalogue import OPERATIONS
from controlplane.store.store import Store
from controlplane.wiring.routing import Routing
from schemas.agent import Agent
from schemas.calls import Named
from schemas.ports import Handler
from schemas.principal import PLANE, Principal

CURSORS = Cursors(b"tests")
EMBED = Embedder()  # one for all of a run: loading takes a moment
VAULT = Vault(b"k" * 32)
ISSUED: dict[str, dict[str, Any]] = {
    "admin": {"principal": "admin", "role": "admin", "namespaces": ["*"]},
    "operator": {"principal": "op", "role": "operator", "namespaces": ["default"]},
    "viewer": {"principal": "eye", "role": "viewer", "namespaces": ["default"]},
    "namesake": {"principal": "op", "role": "operator", "namespaces": ["elsewhere"]},
    "foreign": {"principal": "abroad", "role": "operator", "namespaces": ["elsewhere"]},
    "agent": {"principal": "self", "role": "agent", "namespaces": ["default"], "agent": "echo"},
}


def facts() -> system.Facts:
    return system.Facts(
        "test",
        "0.0.0",
        ready=True,
        gate="up",
        ray="away",
        ray_dashboard=None,
        confinement="possible",
        processes=[],
        problems=[],
    )


class Parts:
    """Store, gate, dispatcher, and what converges them."""

    def __init__(self, store: Store, gate: GateClient, bell: LocalDoorbell) -> None:
        self.store, self.gate, self.bell = store, gate, bell
        found: dict[str, Handler] = {}
        self.dispatcher = Dispatcher(found, store, time.time)
        proposer = Proposer(store, VAULT, routing=Routing(registry()))
        reverting = Reverting(proposer)
        commitment = Commitment(proposer, reverting)
        found |= handling.handlers(proposer, reverting, commitment, bell)
        found |= agents.handlers(store, gate, self._agent)
        found |= channels.handlers(store, gate, bell) | members.handlers(store, gate)
        found |= inspection.handlers(store, gate)
        found |= settling.handlers(store, gate) | moving.handlers(store, gate, bell) | nodes.handlers(store, gate)
        found |= (
            questions.handlers(store, gate)
            | offers.handlers(store, gate)
            | performing.handlers(store)
            | routes.handlers(store, gate)
        )
        found |= discovery.handlers(self._call)
        found |= log.handlers(store, bell, CURSORS)
        found |= system.handlers(store, facts, CURSORS.seal)
        rooms = (
            performing,
            tokens,
            hosts,
            turns,
            code,
            dead_letters,
            delayed,
            elsewhere,
            invitations,
            topology,
            doctor,
        )
        for room in rooms:
            found |= room.handlers(store)
        found |= finding.handlers(store, EMBED)
        found |= usage.handlers(store, RateCard()) | invoices.handlers(store, RateCard())
        assert set(found) == set(OPERATIONS)
        reconciler = Reconciler(store, gate, time.time)
        verifier = Verifier(store, self._call, reverting.propose, commitment.commit, time.time)
        self.loops = (reconciler.tick, verifier.tick)

    async def _call(self, principal: Principal, name: str, raw: dict[str, Any]) -> Any:
        return await self.dispatcher.call(principal, name, raw)

    async def _agent(self, namespace: str, name: str) -> Agent:
        return cast(Agent, await views.get(self.store, "Agent", Named(namespace=namespace, name=name)))

    async def issue(self, **given: Any) -> tuple[str, str]:
        """A token and its id."""
        output = await self._call(PLANE, "tokens.create", given)
        return output.token, output.token_id

    async def authenticate(self, token: str) -> Principal:
        return await tokens.authenticate(self.store, token, time.time())


@contextlib.asynccontextmanager
async def running(url: str) -> AsyncIterator[Parts]:
    """All of it, from a migrated database on."""
    with tempfile.TemporaryDirectory(prefix="stw-") as folder:
        socket = Path(folder) / "gate.sock"
        bell = LocalDoorbell()
        gating = Gate(
            url=url,
            socket=socket,
            key="k",
            effectors=registry().performers(data_fault),
            listeners=registry().listeners,
            open_secret=VAULT.open,
        )
        serving = asyncio.ensure_future(gating.serve())
        gate = GateClient(socket, "k", bell.ring)
        gate.connect()
        store = Store(url, gate)
        parts = Parts(store, gate, bell)
        loops = [asyncio.ensure_future(_again(look, bell)) for look in parts.loops]
        try:
            yield parts
        finally:
            for task in (*loops, serving):
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await gate.close()
            await asyncio.gather(serving, return_exceptions=True)
            await store.close()


async def _again(look: Callable[[], Awaitable[float]], bell: LocalDoorbell) -> None:
    while True:
        await bell.wait(max(await look(), 0.01))
