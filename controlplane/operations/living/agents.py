"""Send, ask, suspend, wake, stop: acts on living agents, each one call to the gate.

A message is durable when `agents.send` answers. `agents.ask` opens an await named by the message,
and waits for it at the gate's bell and at the record: the bell is a hint, the record the truth. A
timeout is no error; the same `request_id` waits for the same message again. With `dry_run` every
check runs, the gate included, and nothing is done. The gate writes; nothing here does.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from sqlmodel import Session, col, func, select

from controlplane.operations.living import capabilities, envelopes
from controlplane.operations.living.lookup import FoundAgent, find_agent
from controlplane.operations.living.waiting import until
from controlplane.resources.problems import refuse
from controlplane.store.cancelling import CANCEL_OPERATOR
from controlplane.store.store import Store
from controlplane.store.tables import AwaitRow, InboxRow, TurnRow
from controlplane.store.unit import Unit
from schemas.agent import Agent
from schemas.base import turn_of
from schemas.calls import Answer, AskInput, CancelInput, Cancelled, NamedAct, SendInput, Sent
from schemas.plan import Preview, Undo
from schemas.ports import GatePort, Handler
from schemas.principal import Call
from schemas.problem import Next, Refusal

ANSWER_KEPT_S = 86_400.0  # how long an answer can still be fetched after the asker's own patience ended

ViewAgent = Callable[[str, str], Awaitable[Agent]]
Resolution = tuple[str | None, str | None]


def handlers(
    store: Store, gate: GatePort, view_agent: ViewAgent, inbox_messages_max: int = 10_000
) -> dict[str, Handler]:
    """The handlers, by the names of their operations."""
    living = Living(store, gate, view_agent, inbox_messages_max)
    return {
        "agents.send": living.send,
        "agents.ask": living.ask,
        "agents.cancel": living.cancel,
        "agents.suspend": living.suspend,
        "agents.wake": living.wake,
        "agents.stop": living.stop,
    }


class Living:
    """Acts on living agents."""

    def __init__(self, store: Store, gate: GatePort, view_agent: ViewAgent, inbox_messages_max: int) -> None:
        self._store = store
        self._gate = gate
        self._view_agent = view_agent
        self._inbox_messages_max = inbox_messages_max

    async def send(self, call: Call, given: SendInput) -> Sent | Preview:
        data = envelopes.encode(given.data)
        found = await find_agent(self._store, given.namespace, given.name)
        if call.dry_run:
            await self._require_room(found, given)
            return _preview(call, f"one message would be put into the inbox of {given.namespace}/{given.name}", "none")
        return Sent(message_id=await self._publish(call, given, data, 0.0))

    async def ask(self, call: Call, given: AskInput) -> Answer | Preview:
        data = envelopes.encode(given.data)
        found = await find_agent(self._store, given.namespace, given.name)
        wanted = None
        if given.capability is not None:
            wanted = await capabilities.wanted(self._store, given, given.capability)
        if call.dry_run:
            await self._require_room(found, given)
            return _preview(call, f"{given.namespace}/{given.name} would be asked, and its answer waited for", "none")
        message_id = await self._publish(call, given, data, call.now + ANSWER_KEPT_S)
        outcome, result = await self._resolution(message_id, given.timeout_s)
        if outcome is None:
            return Answer(message_id=message_id, answered=False)
        if outcome == "answered":
            reply = orjson.loads(result or b"null")
            if wanted is not None:
                capabilities.require_reply(wanted, reply, given, message_id)
            return Answer(message_id=message_id, answered=True, reply=reply)
        raise await self._failure(found, given, message_id, outcome, result)

    async def cancel(self, call: Call, given: CancelInput) -> Cancelled | Preview:
        """Resolve the await, once; then the gate ends what handles it, or does so when it starts or that rests."""
        found = await find_agent(self._store, given.namespace, given.name)
        outcome = await self._store.read(lambda session: _asked(session, given.message_id, found.uid))
        if outcome is None:
            named = {"namespace": given.namespace, "name": given.name}
            look = Next(operation="agents.inspect", arguments=named, why="shows what the agent does")
            detail = f"{given.namespace}/{given.name} was not asked {given.message_id}"
            about: dict[str, Any] = {"kind": "Message", "message_id": given.message_id, **named}
            raise refuse("NOT_FOUND", detail, field="/message_id", next=[look], **about)
        if call.dry_run:
            would = [] if outcome else [f"{given.message_id} would have nobody who waits for its answer"]
            return Preview(operation=call.operation, would=would, undo="none")
        if not outcome:
            unit = Unit().raw(CANCEL_OPERATOR, [call.now, given.message_id], expect=1)
            unit.event(
                "agent.ask_cancelled", kind="Agent", namespace=given.namespace, name=given.name, now=call.now,
                principal=call.principal.name, data={"message_id": given.message_id},
            )  # fmt: skip
            if await self._store.write(unit):
                outcome = "cancelled"
        if outcome == "cancelled":
            await self._gate.control("cancelled", found.uid, {"await_id": given.message_id})
        return Cancelled(message_id=given.message_id, cancelled=outcome == "cancelled")

    async def suspend(self, call: Call, given: NamedAct) -> Agent | Preview:
        return await self._control(call, given, "suspend", "would be let go by its host once it is idle or parked")

    async def wake(self, call: Call, given: NamedAct) -> Agent | Preview:
        return await self._control(call, given, "wake", "would be brought to a host, and no longer be stopped")

    async def stop(self, call: Call, given: NamedAct) -> Agent | Preview:
        return await self._control(call, given, "stop", "would handle nothing until agents.wake")

    async def _control(self, call: Call, given: NamedAct, verb: str, would: str) -> Agent | Preview:
        found = await find_agent(self._store, given.namespace, given.name)
        if call.dry_run:
            await self._gate.control("look", found.uid, {})
            return _preview(call, f"{given.namespace}/{given.name} {would}", "exact")
        await self._gate.control(verb, found.uid, {"principal": call.principal.name})
        return await self._view_agent(given.namespace, given.name)

    async def _publish(self, call: Call, given: SendInput | AskInput, data: bytes, ask_until: float) -> str:
        """Durable when this answers; a message that is there already is the same message."""
        namespace, name = given.namespace, given.name
        message_id = envelopes.message_id(call, namespace, name)
        asked = {"replyto": message_id, "deadline": envelopes.at(ask_until)} if ask_until else {}
        chain = _chain(given)
        within = {"chainid": message_id, "intentid": message_id if given.intent else None} if chain else {}
        how = envelopes.placing(call, given)
        said = {"conversationid": given.conversation, **asked, **within, **_for(given), **envelopes.said(how)}
        body = envelopes.envelope(call, message_id, f"{namespace}/{name}", data, **said)
        await self._gate.publish(namespace, name, message_id, body, ask_until, call.principal.name, chain, how)
        return message_id

    async def _resolution(self, await_id: str, wait_s: float) -> Resolution:
        """What the await came to; nothing when the time was over before."""
        return await until(
            lambda resolution: resolution[0] is not None,
            lambda: self._store.read(lambda session: _awaited(session, await_id)),
            lambda wait_s: self._gate.answered(await_id, wait_s),
            wait_s,
        )

    async def _failure(
        self, found: FoundAgent, given: NamedAct, message_id: str, outcome: str, result: str | None
    ) -> Refusal:
        """The refusal of an asker whose question failed or was never answered."""
        namespace, name = given.namespace, given.name
        turn_id = turn_of(found.uid, message_id)
        known = await self._store.read(lambda session: _turn_exists(session, turn_id))
        turn = Next(operation="turns.get", arguments={"turn_id": turn_id}, why="shows what the turn did")
        inside = Next(operation="agents.inspect", arguments={"namespace": namespace, "name": name}, why="looks inside")
        about: dict[str, Any] = {"namespace": namespace, "name": name, "message_id": message_id}
        steps = [turn, inside] if known else [inside]
        if outcome == "timeout":
            detail = f"{namespace}/{name} did not answer {message_id} as long as an answer is kept"
            return refuse("DEADLINE", detail, next=steps, **about)
        if outcome == "cancelled":
            detail = f"{message_id} to {namespace}/{name} was cancelled"
            return refuse("CANCELLED", detail, next=steps, **about)
        cause = orjson.loads(result or b"{}")
        if cause.get("reason") == "EXPIRED":
            return refuse("EXPIRED", str(cause["detail"]), next=steps, **about)
        detail = f"{namespace}/{name} failed while handling {message_id}: {cause.get('detail', outcome)}"
        return refuse("TURN_FAILED", detail, next=steps, **about, turn_id=turn_id, problem=cause)

    async def _require_room(self, found: FoundAgent, given: NamedAct) -> None:
        """What the gate would refuse, without sending."""
        await self._gate.control("look", found.uid, {})
        waiting = await self._store.read(lambda session: _inbox(session, found.uid))
        if waiting >= self._inbox_messages_max:
            detail = f"the inbox of {given.namespace}/{given.name} holds {waiting} messages"
            raise refuse(
                "BACKLOG_FULL", detail, retry_after_s=1.0, namespace=given.namespace, name=given.name, messages=waiting
            )


def _chain(given: SendInput | AskInput) -> bytes:
    """What the message says of the chain that it begins; empty where it says nothing."""
    if given.budget is None and given.intent is None:
        return b""
    return orjson.dumps({"limits": given.budget or {}, "intent": given.intent})


def _for(given: SendInput | AskInput) -> dict[str, str]:
    """What of its capabilities an agent is asked for."""
    return {"capability": given.capability} if isinstance(given, AskInput) and given.capability else {}


def _preview(call: Call, would: str, undo: Undo) -> Preview:
    return Preview(operation=call.operation, would=[would], undo=undo)


def _awaited(session: Session, await_id: str) -> Resolution:
    row = session.exec(select(AwaitRow.outcome, AwaitRow.result).where(AwaitRow.await_id == await_id)).first()
    return (None, None) if row is None else (row[0], row[1])


def _asked(session: Session, await_id: str, agent: str) -> str | None:
    """What came of an operator's question to an agent; empty while it is open, None where there is none."""
    query = select(AwaitRow.outcome).where(AwaitRow.await_id == await_id, AwaitRow.kind == "operator")
    row = session.exec(query.where(AwaitRow.target_agent == agent)).all()
    return (row[0] or "") if row else None


def _turn_exists(session: Session, turn_id: str) -> bool:
    return session.exec(select(TurnRow.turn_id).where(TurnRow.turn_id == turn_id)).first() is not None


def _inbox(session: Session, agent: str) -> int:
    return session.exec(select(func.count(col(InboxRow.seq))).where(InboxRow.agent == agent)).one()
