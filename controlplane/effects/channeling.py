"""What a turn says about channels: publish, join, leave, as rows of the unit that commits it. Pure.

A channel that is not there is made in that unit, in the agent's own namespace.
"""

from typing import Any

from controlplane.effects.turnref import NOBODY, Aftermath, Row, TurnRef, at_time, envelope, message_id, reach, split
from controlplane.mesh import membership
from controlplane.mesh.making import made as made_channel
from controlplane.mesh.publishing import channel_rows, delayed
from controlplane.store import statements as sql
from schemas.base import canonical, short_id
from schemas.posting import Placed, placed
from schemas.wire import Entry


def publish(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """A message for a channel; where that can not be, it is a dead letter."""
    made, how = message_id(turn, entry), placed_by(body, now)
    channel = body["channel"]
    reached, name = reach(turn, channel, opened=body["opened"]), split(channel)[1]
    text = envelope(turn, made, "steward.message", channel, body["data"], now, taint=body["taint"], **said(how))
    after.published.append((*reached, made))
    detail = f"{turn.address} published it to {channel}, which is not there and can not be made"
    data = canonical({"message_id": made, "reason": "TARGET_NOT_FOUND", "from": turn.address, "to": channel}).decode()
    lost = (turn.agent, turn.namespace, name, made, text, detail, turn.turn_id, now)
    return [
        *_first_used(turn, entry, body, reached, now),
        *(
            waits(after, "Channel", reached, made, text, how)
            or channel_rows(*reached, made, text, how, now, body["room"])
        ),
        (sql.PUBLISH_LOST, (*lost, name, *reached), -1),
        (sql.PUBLISH_LOST_EVENT, (now, turn.namespace, name, turn.turn_id, data, *reached), -1),
    ]


def placed_by(body: dict[str, Any], now: float) -> Placed:
    """How an entry says that its message goes."""
    return placed(body.get("key"), body.get("priority") or 0, body.get("delay_s") or 0.0, body.get("ttl_s"), now)


def said(how: Placed) -> dict[str, Any]:
    """What its envelope says of that."""
    return {
        "partitionkey": how.key,
        "priority": how.priority or None,
        "expires": at_time(how.expires_at) if how.expires_at else None,
    }


def waits(after: Aftermath, kind: str, to: tuple[str, str], made: str, text: str, how: Placed) -> list[Row]:
    """What is not due yet, and has somewhere to go, waits for its time; nothing where it goes at once."""
    if not how.due_at or to[1] == NOBODY:
        return []
    after.due(how.due_at)
    return [delayed(kind, *to, made, text, how)]


def join(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """The agent reads a channel from now on; a member stays where it is."""
    channel = reach(turn, body["channel"], opened=body["opened"])
    after.members.add(channel)
    by = membership.By(turn.address, turn.turn_id)
    made = _first_used(turn, entry, body, channel, now)
    after_position, invitation = body.get("after") or 0, body["invitation"]
    return [*made, *membership.joining(_member(turn, channel), body["start"], by, now, after_position, invitation)]


def leave(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """The agent reads a channel no more; whoever is no member stays so."""
    channel = reach(turn, body["channel"], opened=body["opened"])
    after.members.add(channel)
    return membership.left_by(_member(turn, channel), membership.By(turn.address, turn.turn_id), now, turn.message_id)


def _member(turn: TurnRef, channel: tuple[str, str]) -> membership.Member:
    name = turn.name if channel[0] == turn.namespace else turn.address
    return membership.Member(turn.agent, name, *channel)


def _first_used(turn: TurnRef, entry: Entry, body: dict[str, Any], channel: tuple[str, str], now: float) -> list[Row]:
    if channel[1] == NOBODY or not body["first_use"]:
        return []
    uid = short_id("channel", turn.turn_id, entry.branch, entry.position)
    return made_channel(uid, *channel, turn.address, now, turn.turn_id)
