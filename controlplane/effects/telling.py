"""Results that are told while they come: parts of one effect's result, as messages of a channel.

They are told a few times a second, each once, under ids of their own; the last one commits with the receipt, and
says so. Nothing of a turn rests on them: what is journaled is the whole result, and a replay tells nothing. An
effect that is sent again, after a crash or because its endpoint took nothing, is another attempt and begins anew. A
channel that is not there is made by the first part, as by any that is published.
What may be half a character, or the beginning of the connection's secret, waits for what comes next.
"""

import asyncio
import logging
from typing import Any

import orjson

from controlplane.effects.node import Node
from controlplane.effects.sending import Act
from controlplane.effects.turnref import Row, TurnRef, envelope
from controlplane.mesh.making import made as made_channel
from controlplane.mesh.publishing import channel_rows
from controlplane.protocols.scrubbing import begun, encodable, is_first_half, scrubbed
from controlplane.store import statements as sql
from schemas.base import short_id
from schemas.ports import Telling as TellingEffector
from schemas.posting import Placed
from schemas.wire import Ask

log = logging.getLogger("steward.gate")
PART_S = 0.2
KIND = "steward.part"


class Telling:
    """The parts of one effect's result, on one attempt."""

    def __init__(self, node: Node, turn: TurnRef, frame: Ask, channel: str, act: Act, *, absent: bool) -> None:
        self._node, self._turn, self._frame, self._channel = node, turn, frame, channel
        self._act = act  # its secret is opened after this is made
        self._attempt = short_id("attempt", turn.turn_id, frame.position, turn.epoch, node.clock())
        self._text = ""  # that can be told
        self._coming = ""  # of which what follows decides
        self._told = 0
        self._last = ""
        self._absent = absent
        self._timer: asyncio.TimerHandle | None = None

    def part(self, text: str) -> None:
        """Some more of the result; it is told soon."""
        text = self._coming + text
        half = text[-1:] if is_first_half(text) else ""
        text = scrubbed(encodable(text[: len(text) - len(half)]), self._act.secret)
        ends = len(text) - begun(text, self._act.secret)
        self._text, self._coming = self._text + text[:ends], text[ends:] + half
        if self._text and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PART_S, self._tell)

    def last(self, outcome: str) -> list[Row]:
        """What is left to tell, and that nothing more comes: rows of the receipt's unit."""
        if self._timer is not None:
            self._timer.cancel()
        self._text, self._coming = self._text + scrubbed(encodable(self._coming), self._act.secret), ""
        return self._rows({"done": True, "outcome": outcome})

    def kick(self) -> None:
        """The last is committed: whoever reads the channel may look."""
        self._kick(self._last)

    def _kick(self, made: str) -> None:
        self._node.delivery.published(self._turn.namespace, self._channel, made)

    def _tell(self) -> None:
        self._timer = None
        # In the lane of receipts, so that the last part stays the last.
        rows, made = self._rows({"done": False}), self._last
        self._node.publish(rows, lambda outcome, _: self._is_told(made, outcome))

    def _is_told(self, made: str, outcome: str) -> None:
        self._absent = self._absent and outcome != "ok"
        self._kick(made)

    def _rows(self, more: dict[str, Any]) -> list[Row]:
        turn, at = self._turn, (self._frame.branch, self._frame.position)
        made = short_id("msg", turn.turn_id, *at, self._attempt, self._told, near=turn.turn_id)
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
    return Telling(node, turn, frame, channel, act, absent=row is None)


def ended(act: Act, outcome: str) -> list[Row]:
    """The end of what is told of an effect; nothing where that breaks, for its receipt waits for it."""
    try:
        return [] if act.telling is None else act.telling.last(outcome)
    except Exception:
        log.exception("telling the end of %s", act.effector.name)
        return []
