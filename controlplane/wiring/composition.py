"""The plane's parts, put together: store, gate, guard, operations, feedback, surfaces.

Nothing is decided here. Each room gets what it needs as arguments, and handlers are bound to the
catalogue's names; a name without a handler, or a handler without a name, ends the start.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from controlplane import VERSION
from controlplane.api.app import Surfaces
from controlplane.economy.rating import RateCard
from controlplane.effects.client import GateClient
from controlplane.feedback import log as feedback_log
from controlplane.feedback.cursors import Cursors
from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.feedback.heads import Heads
from controlplane.feedback.stream import EventStreams
from controlplane.guard import tokens
from controlplane.guard.vault import Vault
from controlplane.knowledge.embedding import Embedder
from controlplane.operations import discovery, doctor, handling, repeating, system, views
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
from controlplane.protocols.mcp_allowed import Startable
from controlplane.protocols.registry import registry
from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.problems import refuse
from controlplane.settings import Settings
from controlplane.store.archive import Archive
from controlplane.store.clocks import SETTLED_S, Jumps
from controlplane.store.retention import Retention
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from controlplane.supervision import folder
from controlplane.wiring import database_url
from controlplane.wiring.beside import Beside
from controlplane.wiring.routing import Routing
from ray_runtime.confinement.start import why_not
from schemas import faults
from schemas.ports import Handler
from schemas.principal import Principal

LOOPBACK = ("127.", "::1", "localhost")


@dataclass
class Plane:
    """The parts that have a life of their own."""

    settings: Settings
    store: Store
    gate: GateClient
    bell: LocalDoorbell
    work_bell: LocalDoorbell
    reconciler: Reconciler
    verifier: Verifier
    retention: Retention
    jumps: Jumps
    surfaces: Surfaces
    ready: asyncio.Event

    async def look_at_confinement(self) -> None:
        """Whether agents can be confined here is tried once, before somebody asks."""
        await asyncio.to_thread(_unconfined, self.settings)

    async def become_ready(self) -> None:
        """Once the gate answers: the admin's token, and then messages are accepted."""
        self.gate.connect()
        await self.gate.up()
        path = self.settings.folder / "admin.token"
        held = path.read_text().strip() if path.exists() else None
        token = await tokens.ensure_admin(self.store, held, time.time())
        if token != held:
            folder.write_private(path, token)
        await self.store.write(repeating.lapse_all(time.time()).add(_started(time.time())))
        self.ready.set()

    def stopping(self) -> None:
        """Whoever waits is told, so that nobody holds up the end."""
        self.bell.close()
        self.work_bell.close()

    async def close(self) -> None:
        await self.gate.close()
        await self.store.close()


def compose(settings: Settings, children: Beside) -> Plane:
    """All parts, bound."""
    jumps = Jumps(time.time, time.monotonic)
    bell, work_bell, ready = LocalDoorbell(), LocalDoorbell(), asyncio.Event()

    def moved() -> None:
        bell.ring()
        work_bell.ring()

    gate = GateClient(settings.gate_socket, folder.gate_key(settings.folder), moved)
    store = Store(database_url(settings), gate)
    vault = Vault.at(settings.folder / "secret.key")
    cursors = Cursors((settings.folder / "secret.key").read_bytes())
    proposer = _proposer(settings, store, vault)
    reverting = Reverting(proposer)
    commitment = Commitment(proposer, reverting)
    bound: dict[str, Handler] = {}
    dispatcher = Dispatcher(bound, store, time.time)
    bound |= discovery.handlers(dispatcher.call)
    bound |= feedback_log.handlers(store, bell, cursors)
    bound |= handling.handlers(proposer, reverting, commitment, bell)
    bound |= agents.handlers(store, gate, views.view_agent(store), settings.inbox_messages_max)
    card = RateCard(settings.currency, settings.rates)
    bound |= routes.handlers(store, gate)
    bound |= inspection.handlers(store, gate, card) | settling.handlers(store, gate) | questions.handlers(store, gate)
    bound |= channels.handlers(store, gate, bell) | members.handlers(store, gate)
    bound |= moving.handlers(store, gate, bell) | nodes.handlers(store, gate)
    bound |= finding.handlers(store, Embedder())
    for reading in (tokens, code, hosts, turns, dead_letters, delayed, elsewhere, invitations, topology, doctor):
        bound |= reading.handlers(store)
    bound |= system.handlers(store, lambda: _facts(settings, children, gate, ready, jumps), cursors.seal)
    bound |= offers.handlers(store, gate) | performing.handlers(store)
    bound |= usage.handlers(store, card) | invoices.handlers(store, card)
    _require_all(bound)
    return Plane(
        settings=settings,
        store=store,
        gate=gate,
        bell=bell,
        work_bell=work_bell,
        reconciler=Reconciler(store, gate, time.time, time.monotonic, jumps.settled),
        verifier=Verifier(store, dispatcher.call, reverting.propose, commitment.commit, time.time, time.monotonic),
        retention=_retention(settings, store),
        jumps=jumps,
        surfaces=_surfaces(settings, dispatcher, store, gate, bell, children, ready),
        ready=ready,
    )


def _retention(settings: Settings, store: Store) -> Retention:
    return Retention(
        store,
        turn_retention_s=settings.turn_retention_s,
        event_retention_s=settings.event_retention_s,
        usage_retention_s=settings.usage_retention_s,
        dead_letter_retention_s=settings.dead_letter_retention_s,
        archive=Archive(settings.folder / "archive") if settings.archive_turns else None,
    )


def _surfaces(
    settings: Settings,
    dispatcher: Dispatcher,
    store: Store,
    gate: GateClient,
    bell: LocalDoorbell,
    children: Beside,
    ready: asyncio.Event,
) -> Surfaces:
    async def authenticate(token: str) -> Principal:
        if not ready.is_set():
            # No token can be looked at yet: what the gate says of the store is for the log, not for anybody who asks.
            starting = "the plane is starting, and accepts no messages yet; its log says what it waits for"
            detail = " ".join(children.troubles()) or starting
            raise refuse("NOT_READY", detail, retry_after_s=1.0)
        return await tokens.authenticate(store, token, time.time())

    async def is_ready() -> bool:
        return ready.is_set() and gate.connected

    return Surfaces(
        call=dispatcher.call,
        authenticate=authenticate,
        ready=is_ready,
        version=VERSION,
        body_bytes_max=settings.body_bytes_max,
        body_bytes_in_flight_max=settings.body_bytes_in_flight_max,
        body_s_max=settings.body_s_max,
        calls_in_flight_max=settings.calls_in_flight_max,
        streams=EventStreams(settings.readers_max),
        loopback=settings.host.startswith(LOOPBACK),
        post=gate.post,
        heads=Heads(store, bell),
    )


def _facts(settings: Settings, children: Beside, gate: GateClient, ready: asyncio.Event, jumps: Jumps) -> system.Facts:
    problems = []
    if faults.armed():
        problems.append(f"Fault points are armed by {faults.VARIABLE}: this installation fails on purpose, for tests.")
    if not gate.connected:
        problems.append("The gate is away and is being started again.")
    problems += children.troubles()
    problems += [f"Protocol {it.name} of package {it.package} is left out: {it.why}" for it in registry().troubles]
    if gate.trouble:
        problems.append(gate.trouble)
    if not jumps.settled():
        problems.append(
            f"The machine's clock was moved by {jumps.last_s:+.0f} s; set it right. Nothing is thrown away by its age "
            f"until the clock has stood for {SETTLED_S / 60:.0f} min."
        )
    if children.ray_state != "up":
        problems.append(f"Ray is {children.ray_state}; agents wait for hosts.")
    return system.Facts(
        installation=folder.installation(settings.folder),
        version=VERSION,
        ready=ready.is_set() and gate.connected,
        gate="up" if gate.connected else "away",
        ray=children.ray_state,
        ray_dashboard=children.dashboard,
        confinement=_unconfined(settings) or "possible",
        processes=children.views(),
        problems=problems,
    )


def _proposer(settings: Settings, store: Store, vault: Vault) -> Proposer:
    bounds = settings.plan_ttl_s, settings.agents_max
    return Proposer(
        store, vault, *bounds, settings.currency, lambda: _unconfined(settings), routing=Routing(registry()),
        startable=Startable(settings.mcp_commands, settings.mcp_variables),
    )  # fmt: skip


def _unconfined(settings: Settings) -> str | None:
    return why_not(settings.confined_uid_first)


def _require_all(bound: Mapping[str, Handler]) -> None:
    if missing := sorted(set(OPERATIONS) ^ set(bound)):
        raise RuntimeError(f"operations without a handler, or handlers without an operation: {missing}")


def _started(now: float) -> Unit:
    about: dict[str, Any] = {"kind": "Plane", "namespace": "", "name": "plane", "now": now}
    unit = Unit().event("plane.started", **about, data={"version": VERSION})
    for it in registry().troubles:
        unit.event("protocol.refused", **about, data=asdict(it))
    return unit
