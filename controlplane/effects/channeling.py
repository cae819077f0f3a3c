"""What a turn says about channels: publish, join, leave, as rows of the unit that commits it. Pure.

A channel that is not there is made in that unit, in the agent's own namespace.
"""

from typing import Any

from controlplane.effects.turnref import NOBODY, Aftermath, Row, TurnRef, envelope, message_id, reach, split
from controlplane.mesh import membership
from controlplane.mesh.making import made as made_channel
from controlplane.store import statements as sql
from schemas.base import canonical, short_id
from schemas.wire import Entry


def publish(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """A message for a channel; where that can not be, it is a dead letter."""
    made, key = message_id(turn, entry), body.get("key")
    channel = body["channel"]
    reached, name = reach(turn, channel), split(channel)[1]
    text = envelope(turn, made, "steward.message", channel, body["data"], now, partitionkey=key)
    after.channels.add(reached)
    detail = f"{turn.address} published it to {channel}, which is not there and can not be made"
    data = canonical({"message_id": made, "reason": "TARGET_NOT_FOUND", "from": turn.address, "to": channel}).decode()
    lost = (turn.agent, turn.namespace, name, made, text, detail, turn.turn_id, now)
    return [
        *_first_used(turn, entry, reached, now),
        *channel_rows(*reached, made, text, key, now),
        (sql.PUBLISH_LOST, (*lost, name, *reached), -1),
        (sql.PUBLISH_LOST_EVENT, (now, turn.namespace, name, turn.turn_id, data, *reached), -1),
    ]


def channel_rows(namespace: str, name: str, made: str, text: str, key: str | None, now: float) -> list[Row]:
    """Take the next position of a channel; a message that is there already changes nothing."""
    return [
        (sql.CHANNEL_PUT, (made, key, text, now, namespace, name, made), -1),
        (sql.CHANNEL_BUMP, (namespace, name), -1),
    ]


def join(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """The agent reads a channel from now on; a member stays where it is."""
    channel = reach(turn, body["channel"])
    after.channels.add(channel)
    member = membership.Member(turn.agent, turn.name, *channel)
    by = membership.By(turn.address, turn.turn_id)
    made = _first_used(turn, entry, channel, now)
    return [*made, *membership.joining(member, body["start"], by, now, body.get("after") or 0)]


def leave(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """The agent reads a channel no more; whoever is no member stays so."""
    channel = reach(turn, body["channel"])
    member = membership.Member(turn.agent, turn.name, *channel)
    return membership.left_by(member, membership.By(turn.address, turn.turn_id), now)


def _first_used(turn: TurnRef, entry: Entry, channel: tuple[str, str], now: float) -> list[Row]:
    if channel[1] == NOBODY:
        return []
    uid = short_id("channel", turn.turn_id, entry.branch, entry.position)
    return made_channel(uid, *channel, turn.address, now, turn.turn_id)
