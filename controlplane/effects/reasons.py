"""Why an agent is not suspended, in words: what it does, what began it, and what will keep it awake.

Reads only. The slot says what is so by now; the records say which timer or message comes before the
host would let go of the agent, so that one that is kept awake by its own alarm can be told.
"""

import asyncio
import contextlib
from typing import Any

import msgspec

from controlplane.effects.node import Node
from controlplane.effects.reading import Away
from controlplane.effects.slots import Slot
from controlplane.store import statements as sql
from schemas.branches import ROOT, Place
from schemas.watch import TIMER_PREFIX

COUNTED_MAX = 1_000


class _Subject(msgspec.Struct):
    type: str = ""
    subject: str = ""


_subject = msgspec.json.Decoder(_Subject)


def why_awake(node: Node, slot: Slot) -> str | None:
    """Why the agent is not suspended; None when it is."""
    turn = slot.turn.turn_id if slot.turn is not None else ""
    match slot.state:
        case "free" if slot.queued and not node.nodes.open():
            return "it waits for a host, and its node is drained: nodes.drain with undo ends that"
        case "free" if slot.queued and not node.hosts.waited_for(slot.key):
            most = node.bounds.acquiring_max
            return f"it waits in line: {most} agents at once are brought to hosts, and others came before"
        case "free":
            return _waits_for_a_host(node, slot) if slot.queued else node.budgeting.why(slot)
        case "running":
            doing, for_s = _doing(slot, turn), max(0.0, node.steady() - slot.started)
            return f"{doing}, since {for_s:.3f} s, begun by {_cause(node, slot)}"
        case "committing":
            return f"{turn} is being committed, begun by {_cause(node, slot)}"
        case "parked":
            return f"{turn} is parked, and its host keeps it {_window(slot)}"
        case "idle" if slot.queued:
            return f"{turn} waits for a place in its host's window"
        case "idle" if slot.retry_timer is not None:
            return f"{turn} failed, and is tried again in {_left(slot.retry_timer):.3f} s"
        case "idle":
            return f"it is idle, and its host keeps it {_window(slot)}{_coming(node, slot)}"
        case "acquiring":
            return f"it is being brought to a host{_coming(node, slot)}"
        case _:
            return "it is being let go"


def _doing(slot: Slot, turn: str) -> str:
    """What a turn that is with its host does: first what is on its way, then what an operator shall settle."""
    if flying := sorted(slot.effects - slot.held):
        return f"it waits for effect {shown(flying[0])} of {turn}"
    if held := sorted(slot.held):
        return f"it is running {turn}, of which effect {shown(held[0])} waits for an operator (turns.settle)"
    return f"it is running {turn}"


def shown(place: Place) -> str:
    """A place of the journal, in words."""
    branch, position = place
    return str(position) if branch == ROOT else f"{branch}:{position}"


def _waits_for_a_host(node: Node, slot: Slot) -> str:
    own = "it waits for a host of its own" if slot.key.reserved else "it waits for a host"
    why = node.hosts.why_not(slot.key)
    return f"{own}; Ray says: {why}" if why else own


def _window(slot: Slot) -> str:
    after = f"suspend_after_ms ({slot.spec.get('suspend_after_ms', 2000)})"
    if slot.idle_timer is None:
        return f"until {after} have passed"
    return f"for another {_left(slot.idle_timer):.3f} s, until {after} have passed"


def _left(timer: asyncio.TimerHandle) -> float:
    return max(0.0, timer.when() - asyncio.get_running_loop().time())


def _cause(node: Node, slot: Slot) -> str:
    """What began the turn: a timer is named, with how often it fires."""
    if slot.turn is None or slot.turn.trigger != "timer":
        return f"a {slot.turn.trigger}" if slot.turn is not None else "nothing"
    about = _subject.decode(slot.turn.message)
    name = TIMER_PREFIX + about.subject if about.type == "steward.watch" else about.subject
    row = _row(node, sql.TIMER_OF, slot.uid, name)
    return f"timer {name}{_period(row[2:]) if row else ''}"


def _coming(node: Node, slot: Slot) -> str:
    """Messages that wait, and the timer that is due before the agent would be let go."""
    waiting = _row(node, sql.BACKLOG, slot.uid, COUNTED_MAX)
    said = f"; {waiting[0]} messages wait for it" if waiting and waiting[0] else ""
    row = _row(node, sql.NEXT_TIMER_OF, slot.uid)
    due_in = float(row[1]) - node.clock() if row else 0.0
    if row is None or (slot.idle_timer is not None and due_in > _left(slot.idle_timer)):
        return said
    return f"{said}; timer {row[0]}{_period(row[2:])} is due in {max(0.0, due_in):.3f} s, before that"


def _period(row: tuple[Any, ...]) -> str:
    every_s, cron, zone = row
    if every_s is not None:
        return f" (every {every_s:g} s)"
    return f" ({cron} in {zone})" if cron is not None else ""


def _row(node: Node, query: str, *params: Any) -> tuple[Any, ...] | None:
    with contextlib.suppress(Away):  # then what the slot says is all that is known
        return node.reader.one(query, *params)
    return None
