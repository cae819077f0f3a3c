"""`turns.settle`: an operator says what came of an effect in doubt. The gate decides whether it is held, and writes.

A turn of a namespace that the caller does not reach is answered exactly like one that is not there.
"""

import orjson

from controlplane.operations.living.envelopes import encode
from controlplane.operations.living.turns import absent_turn, agent_of_turn
from controlplane.store.store import Store
from schemas.plan import Preview
from schemas.ports import GatePort, Handler
from schemas.principal import Call
from schemas.settling import Settled, SettleInput


def handlers(store: Store, gate: GatePort) -> dict[str, Handler]:
    """The handler of `turns.settle`."""

    async def settle(call: Call, given: SettleInput) -> Settled | Preview:
        agent = await store.read(lambda session: agent_of_turn(session, given.turn_id, call.principal))
        if agent is None:
            raise absent_turn(given.turn_id)
        asked = {
            **given.model_dump(mode="json", include={"turn_id", "branch", "position", "outcome", "reason"}),
            "result": orjson.loads(encode(given.result)),
            "principal": call.principal.name,
            "dry_run": call.dry_run,
        }
        told = await gate.control("settle", agent, asked)
        if call.dry_run:
            would = f"{told['effect']} at {given.branch}:{given.position} would be settled as {given.outcome}"
            return Preview(operation=call.operation, would=[would], undo="none")
        return Settled(
            turn_id=given.turn_id,
            branch=given.branch,
            position=given.position,
            effect=told["effect"],
            connection=told["connection"],
            outcome=given.outcome,
        )

    return {"turns.settle": settle}
