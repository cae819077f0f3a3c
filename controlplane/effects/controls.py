"""What an operator or a reconciler does to one agent: suspend, wake, stop, reload, remove, look, deliver.

Each verb is level-triggered and may be said twice. A verb that changes a record writes its event in
the same unit, and none when nothing changed.
"""

from collections.abc import Callable
from typing import Any

import orjson

from controlplane.effects import journaling
from controlplane.effects.entries import Row
from controlplane.effects.node import Node
from controlplane.effects.slots import Slot
from controlplane.resources.problems import problem
from controlplane.store import statements as sql
from schemas.problem import Problem
from schemas.wire import Control, Evict

Answer = Callable[[dict[str, Any] | Problem], None]


def control(node: Node, frame: Control, done: Answer) -> None:
    """Do one verb; `done` gets what to answer."""
    if frame.verb == "deliver":
        node.delivery.deliver(frame.agent)
        done({})
        return
    argument = orjson.loads(frame.argument) if frame.argument else {}
    if frame.verb == "remove":
        _remove(node, frame.agent, done)
        return
    slot = node.slots.load(frame.agent)
    if slot is None:
        done(problem("NOT_FOUND", f"there is no agent of uid {frame.agent}", uid=frame.agent))
        return
    _VERBS[frame.verb](node, slot, argument.get("principal"), done)
    if node.slots.get(slot.uid) is slot:
        node.turns.pump(slot)


def _suspend(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    if slot.state == "free":
        done({"suspended": True})
        return
    slot.tell = principal
    if slot.state in ("idle", "parked") and slot.retry_timer is None:
        node.turns.let_go(slot)
        done({"suspended": True})
        return
    slot.leave = True
    done({"suspended": False, "waits_for": slot.turn.turn_id if slot.turn is not None else slot.state})


def _wake(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    slot.leave = False
    if not slot.stopped:
        told = slot.state == "free"
        slot.keep = True
        if told:
            row = journaling.agent_event("agent.woken", slot.namespace, slot.name, principal, node.clock())
            node.commit([row], _nobody, 1)
        done({"stopped": False})
        return
    now = node.clock()
    rows: list[Row] = [
        (sql.UNSTOP, (now, slot.uid), 1),
        journaling.agent_event("agent.woken", slot.namespace, slot.name, principal, now),
    ]

    def woken(_outcome: str, _detail: str) -> None:
        node.turns.forget(slot)
        if (fresh := node.slots.load(slot.uid)) is not None:
            fresh.keep = True
            node.turns.pump(fresh)
        node.timers.arm(now)
        done({"stopped": False})

    node.commit(rows, woken)


def _stop(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    if slot.stopped:
        done({"stopped": True})
        return
    now = node.clock()
    rows: list[Row] = [
        (sql.STOP, (now, slot.uid), 1),
        journaling.agent_event("agent.stopped", slot.namespace, slot.name, principal, now),
    ]
    _abort(node, slot)

    def stopped(_outcome: str, _detail: str) -> None:
        if (fresh := node.slots.get(slot.uid)) is not None:
            node.turns.forget(fresh)
        done({"stopped": True})

    node.commit(rows, stopped)


def _abort(node: Node, slot: Slot) -> None:
    """Take the agent from its host; what was not committed is run again, or never."""
    if slot.host is not None:
        slot.host.wire.send(Evict(slot.uid, slot.epoch, abort=True))
    node.turns.forget(slot)


def _reload(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    """The spec has changed, or there is a first message: the next turn runs on what is stored now."""
    if slot.state == "free":
        node.turns.forget(slot)
    else:
        slot.stale = slot.more = True
    node.turns.ring(slot.uid)
    done({})


def _look(node: Node, slot: Slot, principal: str | None, done: Answer) -> None:
    done({"why_awake": why_awake(slot)})


def why_awake(slot: Slot) -> str | None:
    """Why the agent is not suspended; None when it is."""
    turn = slot.turn.turn_id if slot.turn is not None else ""
    match slot.state:
        case "free":
            return "it waits for a host" if turn else None
        case "running":
            effects = sorted(slot.effects)
            return f"it waits for effect {effects[0]} of {turn}" if effects else f"it is running {turn}"
        case "committing":
            return f"{turn} is being committed"
        case "parked":
            return f"{turn} is parked, and its host keeps it until suspend_after_ms have passed"
        case "idle":
            if slot.retry_timer is not None:
                return f"{turn} failed and is about to be tried again"
            return "it is idle, and its host keeps it until suspend_after_ms have passed"
        case "acquiring":
            return "it is being brought to a host"
        case _:
            return "it is being let go"


def _remove(node: Node, uid: str, done: Answer) -> None:
    """The agent was deleted: whoever waits for it hears so, and nothing of it is left but dead letters."""
    slot = node.slots.load(uid)
    if slot is None:
        done({"removed": True})
        return
    _abort(node, slot)
    now = node.clock()
    askers = [row[0] for row in node.reader.rows(sql.ASKERS, uid)]
    found = problem("TARGET_NOT_FOUND", f"{slot.address} was deleted", to=slot.address).model_dump(mode="json")
    rows: list[Row] = [(sql.REMOVE_DEAD_LETTERS, (slot.namespace, slot.name, now, uid), -1)]
    for await_id in askers:
        rows += journaling.refusal(slot.address, await_id, found, now)
    rows += [(text, (uid,), -1) for text in sql.REMOVE]

    def removed(outcome: str, detail: str) -> None:
        if outcome != "ok":
            done(problem("CONFLICT", f"the agent could not be removed: {detail}", detail_of_store=detail))
            return
        if (fresh := node.slots.get(uid)) is not None:
            _abort(node, fresh)
        for await_id in askers:
            node.timers.resolved(await_id)
        done({"removed": True})

    node.commit(rows, removed)


def _nobody(_outcome: str, _detail: str) -> None:
    """Nobody waits for this commit."""


_VERBS: dict[str, Callable[[Node, Slot, str | None, Answer], None]] = {
    "suspend": _suspend,
    "wake": _wake,
    "stop": _stop,
    "reload": _reload,
    "look": _look,
}
