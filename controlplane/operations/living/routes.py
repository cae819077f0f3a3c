"""Pause, resume and replay a route: its worker is stopped, woken, set back."""

from sqlmodel import Session

from controlplane.operations import views
from controlplane.operations.living.lookup import FoundAgent, absent, find_agent
from controlplane.operations.living.replaying import Replaying
from controlplane.operations.snapshot import read_known
from controlplane.operations.workers import worker_name
from controlplane.operations.world import Key
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from schemas.calls import Named, NamedAct
from schemas.plan import Preview
from schemas.ports import GatePort, Handler
from schemas.principal import Call
from schemas.problem import Next, Refusal
from schemas.replaying import Replayed, ReplayInput
from schemas.route import Route


def handlers(store: Store, gate: GatePort) -> dict[str, Handler]:
    """The handlers, by the names of their operations."""
    living = Routes(store, gate)
    return {"routes.pause": living.pause, "routes.resume": living.resume, "routes.replay": living.replay}


class Routes:
    """Acts on routes."""

    def __init__(self, store: Store, gate: GatePort) -> None:
        self._store = store
        self._gate = gate
        self._replaying = Replaying(store, gate)

    async def pause(self, call: Call, given: NamedAct) -> Route | Preview:
        return await self._control(call, given, "stop", "would pass nothing on until routes.resume")

    async def resume(self, call: Call, given: NamedAct) -> Route | Preview:
        return await self._control(call, given, "wake", "would go on where it was paused")

    async def replay(self, call: Call, given: ReplayInput) -> Replayed | Preview:
        return await self._replaying.replay(call, given, await self._worker(given))

    async def _control(self, call: Call, given: NamedAct, verb: str, would: str) -> Route | Preview:
        worker = await self._worker(given)
        if call.dry_run:
            await self._gate.control("look", worker.uid, {})
            text = f"route {given.namespace}/{given.name} {would}"
            return Preview(operation=call.operation, would=[text], undo="exact")
        await self._gate.control(verb, worker.uid, {"principal": call.principal.name})
        found = await views.get(self._store, "Route", Named(namespace=given.namespace, name=given.name))
        return Route.model_validate(found)

    async def _worker(self, given: NamedAct) -> FoundAgent:
        """The agent that does the route; refused where there is no route, or not yet an agent of it."""
        name = worker_name(given.name)

        def query(session: Session) -> tuple[str | None, str | None]:
            route: Key = ("Route", given.namespace, given.name)
            worker: Key = ("Agent", given.namespace, name)
            known = read_known(session, [route, worker])
            found, agent = known.get(route), known.get(worker)
            uid = found.uid if found is not None else None
            return uid, agent.uid if agent is not None and agent.owner == uid else None

        uid, worker = await self._store.read(query)
        if uid is None:
            raise absent("Route", given.namespace, given.name, "/name")
        try:
            if worker is not None:
                return await find_agent(self._store, given.namespace, name)
        except Refusal as refusal:
            if refusal.problem.reason != "NOT_FOUND":
                raise
        detail = f"the agent of route {given.namespace}/{given.name} is not set up yet"
        step = Next(
            operation="routes.get", arguments={"namespace": given.namespace, "name": given.name}, why="shows when it is"
        )
        about = {"namespace": given.namespace, "name": given.name, "kind": "Route"}
        raise refuse("NOT_SET_UP", detail, retry_after_s=1.0, next=[step], **about)
