"""Results that are told while they come: parts of one effect's result, as messages of a channel.

They are told a few times a second, each once, under ids of their own; the last one commits with the receipt, and
says so. Nothing of a turn rests on them: what is journaled is the whole result, and a replay tells nothing. An
effect that is sent again, after a crash or because its endpoint took nothing, is another attempt and begins anew. A
channel that is not there is made by the first part, as by any that is published.
"""

import asyncio
from typing import Any

import orjson

from controlplane.effects.node import Node
from controlplane.effects.sending import Act
from controlplane.effects.turnref import Row, TurnRef, envelope
from controlplane.mesh.making import made as made_channel
from controlplane.mesh.publishing import channel_rows
from controlplane.store import statements as sql
from schemas.base import short_id
from schemas.ports import Telling as TellingEffector
from schemas.posting import Placed
from schemas.wire import Ask

PART_S = 0.2
KIND = "steward.part"


class Telling:
    """The parts of one effect's result, on one attempt."""

    def __init__(self, node: Node, turn: TurnRef, frame: Ask, channel: str, *, absent: bool) -> None:
        self._node, self._turn, self._frame, self._channel = node, turn, frame, channel
        self._attempt = short_id("attempt", turn.turn_id, frame.position, turn.epoch, node.clock())
        self._text = ""
        self._told = 0
        self._last = ""
        self._absent = absent
        self._timer: asyncio.TimerHandle | None = None

    def part(self, text: str) -> None:
        """Some more of the result; it is told soon."""
        self._text += text
        if text and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PART_S, self._tell)

    def last(self, outcome: str) -> list[Row]:
        """What is left to tell, and that nothing more comes: rows of the receipt's unit."""
        if self._timer is not None:
            self._timer.cancel()
        return self._rows({"done": True, "outcome": outcome})

    def kick(self) -> None:
        """It is committed: whoever reads the channel may look."""
        self._node.delivery.published(self._turn.namespace, self._channel, self._last)

    def _tell(self) -> None:
        self._timer = None
        # In the lane of receipts, so that the last part stays the last.
        self._node.publish(self._rows({"done": False}), self._is_told)

    def _is_told(self, outcome: str, detail: str) -> None:
        self._absent = self._absent and outcome != "ok"
        self.kick()

    def _rows(self, more: dict[str, Any]) -> list[Row]:
        turn, at = self._turn, (self._frame.branch, self._frame.position)
        made = short_id("msg", turn.turn_id, *at, self._attempt, self._told)
        about = {"turn_id": turn.turn_id, "position": at[1], "attempt": self._attempt, "part": self._told}
        to, now = f"{turn.namespace}/{self._channel}", self._node.clock()
        text = envelope(turn, made, KIND, to, {**about, "text": self._text, **more}, now, partitionkey=turn.turn_id)
        self._text, self._told, self._last = "", self._told + 1, made
        first = short_id("channel", made), turn.namespace, self._channel, turn.address, now, turn.turn_id
        rows = made_channel(*first) if self._absent else []
        room = self._node.delivery.room
        return [*rows, *channel_rows(turn.namespace, self._channel, made, text, Placed(turn.turn_id), now, room)]


def telling(node: Node, turn: TurnRef, frame: Ask, act: Act) -> Telling | None:
    """Who tells of the effect while its result comes; None where nobody listens."""
    channel = act.effector.told_to(act.arguments) if isinstance(act.effector, TellingEffector) else None
    if channel is None:
        return None
    row = node.reader.one(sql.CHANNEL_SPEC, turn.namespace, channel)
    if row is not None and orjson.loads(row[0]).get("dataschema") is not None:  # parts have a form of their own
        return None
    return Telling(node, turn, frame, channel, absent=row is None)
