"""Messages that wait for their time, and take their place then: in an inbox or a channel, once.

What has no place to go to when it is due is a dead letter. Where there is no room, it becomes due again later, in its
order and so many a second: whatever waits for a full inbox keeps nothing else from its time.
"""

from functools import partial

from controlplane.effects.entries import sent
from controlplane.effects.node import MESSAGES, Done, Node
from controlplane.effects.turnref import Row
from controlplane.mesh.publishing import channel_rows
from controlplane.resources.problems import problem
from controlplane.store import queues
from controlplane.store import statements as sql
from schemas.base import canonical
from schemas.posting import DELAYED_MAX, PRIORITY_MAX, Placed
from schemas.problem import Problem

AGAIN_S, RETRY_AFTER_S = 1.0, 1.0
APART_S = 1e-6  # between two that become due again together, so that they keep their order
Target = tuple[str, str, str]


class Delaying:
    """The messages of this gate that are not due yet."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._moving: set[int] = set()
        self._again: dict[Target, tuple[float, int]] = {}
        self.paused_until = 0.0  # the store does not take what is due

    def holds(self, kind: str, namespace: str, name: str, message_id: str) -> bool:
        """Whether a message waits here, or did until it was cancelled: whoever says it again brings nothing new."""
        return self._node.reader.one(queues.IS_DELAYED, kind, namespace, name, message_id) is not None

    def full(self, kind: str, namespace: str, name: str) -> Problem | None:
        """Why no more may wait for one inbox or channel."""
        count = self._node.reader.rows(queues.DELAYED, kind, namespace, name, DELAYED_MAX)[0][0]
        if count < DELAYED_MAX:
            return None
        to = f"{namespace}/{name}"
        detail = f"{count} messages wait for their time to go to {to}, which is the most"
        return problem("BACKLOG_FULL", detail, retry_after_s=RETRY_AFTER_S, to=to, messages=count)

    def due(self, now: float) -> list[partial[None]]:
        """What takes its place now, each by itself. Whether a target has room is told once for all of them."""
        self._again = {target: it for target, it in self._again.items() if it[0] > now}
        full: set[Target] = set()
        return [partial(self._deliver, row, now, full) for row in self._node.reader.rows(queues.DUE, now)]

    def _deliver(self, row: tuple[object, ...], now: float, full: set[Target]) -> None:
        number, kind, namespace, name, message_id, key, rank, expires_at, body = row
        it, to = int(str(number)), (str(namespace), str(name))
        target = (str(kind), *to)
        if it in self._moving:
            return
        if target in full or self._no_room(str(kind), to):
            full.add(target)
            self._put_off(it, target, now)
            return
        priority = 0 if rank is None else PRIORITY_MAX - int(str(rank))
        how = Placed(None if key is None else str(key), priority, 0.0, float(str(expires_at)) if expires_at else 0.0)
        rows = self._rows(str(kind), to, str(message_id), str(body), how, now)
        self._moving.add(it)

        def moved(outcome: str, _detail: str) -> None:
            self._moving.discard(it)
            if outcome != "ok":
                self._put_off(it, target, self._node.clock())
            elif kind == "Agent":
                self._node.ownership.ring_name(*to)
            else:
                self._node.delivery.published(*to, str(message_id))

        self._write([*rows, (queues.NO_LONGER_DELAYED, (it,), 1)], moved)

    def _put_off(self, it: int, target: Target, now: float) -> None:
        """It becomes due again: with others of its target up to a number, behind what was put off before."""
        at, many = self._again.get(target, (0.0, 0))
        if at <= now:
            at, many = now + AGAIN_S, 0
        elif many >= queues.DUE_MAX:
            at, many = at + AGAIN_S, 0
        self._again[target] = (at, many + 1)
        self._moving.add(it)

        def put_off(outcome: str, _detail: str) -> None:
            self._moving.discard(it)
            if outcome != "ok":
                self.paused_until = self._node.clock() + AGAIN_S
            self._node.timers.arm(at)

        self._write([(queues.PUT_OFF, (at + many * APART_S, it), -1)], put_off)

    def _write(self, rows: list[Row], done: Done) -> None:
        self._node.commit("due", rows, done, MESSAGES)

    def _no_room(self, kind: str, to: tuple[str, str]) -> bool:
        node, address = self._node, "/".join(to)
        if kind == "Agent":
            row = node.reader.one(sql.AGENT_UID, *to)
            return row is not None and node.planes.full(row[0], address) is not None
        row = node.reader.one(sql.CHANNEL, *to)
        return row is not None and row[2] == "queue" and node.delivery.queues.full(row[0], address, row[3]) is not None

    def _rows(self, kind: str, to: tuple[str, str], made: str, text: str, how: Placed, now: float) -> list[Row]:
        word = kind.lower()
        detail = f"when its time came, there was no {word} {to[0]}/{to[1]}"
        told = canonical({"message_id": made, "reason": "TARGET_NOT_FOUND", "to": "/".join(to)}).decode()
        lost = (None, *to, made, text, detail, None, now)
        if kind == "Agent":
            return [
                sent(made, text, how, now, to),
                (sql.SEND_LOST, (*lost, *to), -1),
                (sql.SEND_LOST_EVENT, (now, *to, None, told, *to), -1),
            ]
        return [
            *channel_rows(*to, made, text, how, now, self._node.delivery.room),
            (sql.PUBLISH_LOST, (*lost, to[1], *to), -1),
            (sql.PUBLISH_LOST_EVENT, (now, *to, None, told, *to), -1),
        ]
