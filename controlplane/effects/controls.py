"""What an operator or a reconciler does to one agent: suspend, wake, stop, reload, remove, look, migrate.

Each verb is level-triggered and may be said twice. It is answered when it is done, or after a moment
with what it waits for. A verb of an operator that changes a record writes its event in the same unit,
and none when nothing changed.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from controlplane.effects import eventing, journaling
from controlplane.effects.node import Node
from controlplane.effects.reasons import why_awake
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import Row
from controlplane.mesh.membership import going, gone
from controlplane.resources.problems import problem
from controlplane.store import cancelling, dead_letters, scopes
from controlplane.store import statements as sql
from schemas.frames import Control
from schemas.problem import Problem
from schemas.wire import Evict

Answer = Callable[[dict[str, Any] | Problem], None]
PATIENCE_S = 2.0


def control(node: Node, frame: Control, done: Answer) -> None:
    """Do one verb; `done` gets what to answer."""
    if frame.verb == "deliver":
        node.delivery.deliver(frame.agent)
        done({})
        return
    if frame.verb == "remove":
        remove(node, frame.agent, done)
        return
    if frame.verb == "settle":
        node.holding.settle(frame, done)
        return
    if frame.verb == "migrate":
        node.moving.migrate(frame, done)
        return
    if frame.verb == "drain":
        node.draining.drain(frame, done)
        return
    if frame.verb == "cancelled":
        node.cancelling.cancelled([(frame.agent, orjson.loads(frame.argument)["await_id"])])
        done({})
        return
    if frame.verb == "offers":
        node.offers.ask(frame, done)
        return
    if frame.verb == "nodes":
        node.nodes.list(done)
        return
    if frame.verb == "drain_node":
        node.nodes.drain(frame, done)
        return
    slot, verb = node.slots.load(frame.agent), _VERBS.get(frame.verb)
    if slot is None or verb is None:
        done(problem("NOT_FOUND", f"there is no agent of uid {frame.agent}", uid=frame.agent, verb=frame.verb))
        return
    argument = orjson.loads(frame.argument) if frame.argument else {}
    verb(node, slot, argument.get("principal"), done)
    if node.slots.holds(slot) and not slot.queued:
        node.ownership.pump(slot)


def _suspend(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    if slot.state == "free" and slot.owner is None and not slot.queued:
        done({"suspended": True})
        return
    slot.suspended_by, slot.leave, slot.move = principal or slot.suspended_by, True, None
    told = soon(done, lambda: {"suspended": False, "waits_for": why_awake(node, slot)})
    slot.on_gone.append(lambda: told({"suspended": True}))
    node.ownership.let_go(slot)


def _wake(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    slot.leave = slot.move is not None
    if not slot.stopped:
        _awake(node, slot, principal, done)
        return
    now = node.clock()
    rows: list[Row] = [(sql.UNSTOP, (now, slot.uid), -1)]
    if principal is not None:
        rows.append(eventing.agent_event("agent.woken", slot.namespace, slot.name, principal, now))

    def woken(outcome: str, detail: str) -> None:
        if failed(outcome, detail, done):
            return
        if (known := node.slots.get(slot.uid)) is not None:
            node.ownership.forget(known)
        if (fresh := node.slots.load(slot.uid)) is not None:
            _awake(node, fresh, None, done)
            node.ownership.pump(fresh)
        node.timers.arm(now)

    node.commit("unstop", rows, woken)


def _awake(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    """Bring it to a host, whether there is a message or not."""
    if slot.host is not None and node.ownership.owned(slot):
        done({"stopped": False})
        return
    slot.keep = True
    slot.woken_by = principal or slot.woken_by
    told = soon(done, lambda: {"stopped": False, "waits_for": why_awake(node, slot)})
    slot.on_awake.append(lambda: told({"stopped": False}))


def _stop(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    if slot.stopped:
        done({"stopped": True})
        return
    now = node.clock()
    rows: list[Row] = [(sql.STOP, (now, slot.uid), 1)]
    if principal is not None:
        rows.append(eventing.agent_event("agent.stopped", slot.namespace, slot.name, principal, now))
    _abort(node, slot)

    def stopped(outcome: str, detail: str) -> None:
        if (known := node.slots.get(slot.uid)) is not None:
            _abort(node, known)
        if outcome != "error":  # a conflict: it was stopped meanwhile
            done({"stopped": True})
        else:
            failed(outcome, detail, done)
            node.ownership.ring(slot.uid)

    node.commit("stop", rows, stopped)


def _abort(node: Node, slot: Slot) -> None:
    """Take the agent from its host; what was not committed is run again, or never."""
    if slot.host is not None:
        slot.host.wire.send(Evict(slot.uid, slot.epoch, abort=True))
    node.ownership.forget(slot)


def _reload(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    """The spec has changed, or there is a first message: the next turn runs on what is stored now."""
    if slot.state == "free" and not slot.queued:
        node.ownership.forget(slot)
    elif slot.state == "free" and slot.turn is not None and slot.turn.proving:
        node.ownership.forget(slot)  # on code that is wanted no more
    elif slot.state == "free":
        node.slots.refresh(slot)  # it may wait for a host of a kind that it wants no more
        slot.queued = False
    else:
        slot.stale = slot.more = True
        if slot.state == "parked":
            node.ownership.let_go(slot)
    node.computing.respecified(slot.uid)
    node.ownership.ring(slot.uid)
    done({})


def _look(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    done({"why_awake": why_awake(node, slot), "state": slot.state, "host": slot.host.host_id if slot.host else None})


def remove(node: Node, uid: str, done: Answer) -> None:
    """The agent was deleted: whoever waits for it hears so, and nothing of it is left but dead letters."""
    slot = node.slots.load(uid)
    if slot is None:
        done({"removed": True})
        return
    _abort(node, slot)
    now = node.clock()
    found = problem("TARGET_NOT_FOUND", f"{slot.address} was deleted", to=slot.address).model_dump(mode="json")
    told = orjson.dumps(found).decode()
    rows: list[Row] = [
        *going(uid),
        (dead_letters.OF_REMOVED, (slot.namespace, slot.namespace, slot.name, now, uid), -1),
    ]
    rows.append((sql.REMOVE_TURNS, (now, told, uid), -1))
    asked = node.cancelling.asked_by_agent(uid)
    rows.append((cancelling.CANCEL_OF_AGENT, (now, uid), -1))
    askers = [row[0] for row in node.reader.rows(sql.ASKERS, uid)]
    for await_id in askers:
        rows += journaling.refusal(slot.address, await_id, found, now)
    rows += node.computing.cut(uid)
    rows.append((scopes.END_OF_AGENT, (now, uid), -1))
    rows += [*((text, (uid,), -1) for text in sql.REMOVE), *gone(uid, now)]

    def removed(outcome: str, detail: str) -> None:
        if failed(outcome, detail, done):
            return
        if (known := node.slots.get(uid)) is not None:
            _abort(node, known)
        node.budgeting.gone(uid)
        for turn_id in [it for it, of in node.hosts.suspects.items() if of == uid]:
            del node.hosts.suspects[turn_id]
        node.sweep_soon()
        for await_id in askers:
            node.timers.resolved(await_id)
        node.cancelling.cancelled(asked)
        node.sweep_soon()  # children that end with it
        _tell_late_askers(node, uid, slot.address, found)
        done({"removed": True})

    node.commit("remove", rows, removed)


def _tell_late_askers(node: Node, uid: str, address: str, found: dict[str, Any]) -> None:
    """Who asked while it was being removed; from now on nobody can."""
    for (await_id,) in node.reader.rows(sql.ASKERS, uid):
        rows = journaling.refusal(address, await_id, found, node.clock())
        node.commit("asker", rows, partial(_resolved, node, await_id))


def _resolved(node: Node, await_id: str, _outcome: str, _detail: str) -> None:
    node.timers.resolved(await_id)


def failed(outcome: str, detail: str, done: Answer) -> bool:
    """Whether the unit did not commit; then that is the answer."""
    if outcome == "ok":
        return False
    reason, _, text = detail.partition(": ")
    done(problem(reason if outcome == "error" else "CONFLICT", f"nothing was changed: {text or outcome}", cause=text))
    return True


def soon(done: Answer, otherwise: Callable[[], dict[str, Any]], patience_s: float | None = None) -> Answer:
    """Answer once: with what comes within a moment, or with what it waits for."""
    open_ = [done]

    def answer(body: dict[str, Any] | Problem) -> None:
        if open_:
            timer.cancel()
            open_.pop()(body)

    timer = asyncio.get_running_loop().call_later(
        PATIENCE_S if patience_s is None else patience_s, lambda: answer(otherwise())
    )
    return answer


_VERBS: dict[str, Callable[[Node, Slot, str | None, Answer], None]] = {
    "suspend": _suspend,
    "wake": _wake,
    "stop": _stop,
    "reload": _reload,
    "look": _look,
}
