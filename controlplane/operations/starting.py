"""What brings a declared agent or channel to life: units that may run again at any time.

An agent starts as a row and a message `start` in its inbox, under an id made of uid and generation;
a new generation is the same once more. What its spec watches is set up beside it; a channel becomes a
subscription when both are there, whichever came first. Each unit holds everything of its step or nothing, and is a
compare-and-set on what it goes on from. Pure.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from controlplane.operations import watches
from controlplane.operations.conditions import moment, start_message, start_turn
from controlplane.operations.world import Known, Spec
from controlplane.store import statements
from controlplane.store.channels import BEGINS, CAME_TO, FORGET_MEMBERS_OF, place_of
from controlplane.store.queues import UNQUEUE
from controlplane.store.unit import Unit
from schemas.base import rfc3339

AGENT = """INSERT INTO agent (uid, namespace, name, generation, epoch, version, owner, stopped, changed_at)
SELECT uid, namespace, name, generation, 0, 0, NULL, 0, ? FROM resource
WHERE uid = ? AND generation = ? AND deleted_at IS NULL ON CONFLICT DO NOTHING"""
REACH = "UPDATE agent SET generation = ? WHERE uid = ? AND generation < ?"
CHANNEL = f"""INSERT INTO channel (uid, namespace, name, next_position, mode, retention_s, backlog_max, attempts_max,
in_flight_max, ephemeral, used_at) SELECT uid, namespace, name, {BEGINS}, ?, ?, ?, ?, ?, ?, ? FROM resource
WHERE uid = ? AND kind = 'Channel' AND deleted_at IS NULL ON CONFLICT DO NOTHING"""  # noqa: S608
RETAIN = """UPDATE channel SET mode = ?, retention_s = ?, backlog_max = ?, attempts_max = ?, in_flight_max = ?,
ephemeral = ?, used_at = ? WHERE uid = ?"""
MESSAGES_AT_ONCE = 5_000
FORGET = """DELETE FROM channel_message WHERE channel = ? AND position <=
(SELECT MIN(position) + ? FROM channel_message WHERE channel = ?)"""
REMOVE_CHANNEL = """DELETE FROM channel WHERE uid = ?
AND NOT EXISTS (SELECT 1 FROM channel_message m WHERE m.channel = channel.uid)"""
UNSUBSCRIBE = "DELETE FROM subscription WHERE channel = ?"


def envelope(uid: str, namespace: str, name: str, generation: int, now: float) -> str:
    """The start message of a generation, as a CloudEvent."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": start_message(uid, generation),
            "source": f"/{namespace}/agents/{name}",
            "type": "steward.start",
            "subject": f"{namespace}/{name}",
            "time": rfc3339(moment(now)),
            "datacontenttype": "application/json",
            "data": {"generation": generation},
        }
    ).decode()


def start_agents(unit: Unit, agents: Iterable[tuple[str, Known]], now: float) -> Unit:
    """Rows, start messages and subscriptions of agents that are declared and not there yet, by their uid."""
    listed = list(agents)
    for uid, it in listed:
        unit.raw(AGENT, [now, uid, it.generation], expect=1)
    for uid, it in listed:
        _start(unit, uid, it, now)
    return unit


def reach_generation(unit: Unit, agents: Iterable[tuple[str, Known]], now: float) -> Unit:
    """A new generation of agents that are there: a new start message."""
    listed = list(agents)
    for uid, it in listed:
        unit.raw(REACH, [it.generation, uid, it.generation], expect=1)
    for uid, it in listed:
        watches.take_away(unit, uid, it.spec["watches"])
        _start(unit, uid, it, now)
    return unit


def _start(unit: Unit, uid: str, it: Known, now: float) -> None:
    message, turn = start_message(uid, it.generation), start_turn(uid, it.generation)
    body = envelope(uid, it.namespace, it.name, it.generation, now)
    unit.raw(statements.PUT, [uid, message, "start", body, now, turn])
    watches.set_up(unit, uid, it.namespace, it.spec["watches"], now)


def set_up_channel(unit: Unit, channel: Known, watching: Iterable[tuple[str, Spec]], now: float) -> Unit:
    """The running side of a channel, with the agents that watch it by their spec."""
    begins = place_of(channel.namespace, channel.name)
    unit.raw(CHANNEL, [begins, *_running(channel, now), channel.uid], expect=1)
    for uid, spec in watching:
        for it in watches.channels_of(spec["watches"]):
            if it["channel"] == channel.name:
                watches.subscribe(unit, uid, channel.namespace, it, now)
    return unit


def retain_channel(unit: Unit, channel: Known, uid: str, now: float) -> Unit:
    """A running channel goes by its spec as it is now."""
    return unit.raw(RETAIN, [*_running(channel, now), uid], expect=1)


def _running(channel: Known, now: float) -> list[Any]:
    spec = channel.spec
    bounds = [spec["backlog_messages_max"], spec["attempts_max"], spec.get("in_flight_max", 1)]
    return [spec["mode"], spec["retention_s"], *bounds, int(spec["ephemeral"]), now]


def take_down_channel(unit: Unit, uid: str, channel: Known) -> Unit:
    """A bounded piece of what a deleted channel left; the row goes with the last message."""
    unit.raw(CAME_TO, [place_of(channel.namespace, channel.name), uid])
    unit.raw(UNSUBSCRIBE, [uid]).raw(FORGET_MEMBERS_OF, [uid]).raw(UNQUEUE, [uid]).raw(
        FORGET, [uid, MESSAGES_AT_ONCE, uid]
    )
    return unit.raw(REMOVE_CHANNEL, [uid])
