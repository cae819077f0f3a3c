"""Joining and leaving a channel, as rows of a unit. Pure.

Who was a member when a message was accepted has one answer, which is kept: a membership says the positions
between which it lasted. It is written with the subscription, whoever makes or ends that.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from controlplane.store import channels as sql
from controlplane.store import queues
from controlplane.store.invitations import INVITED_BY
from schemas.base import canonical

Row = tuple[str, Sequence[Any], int]


class Member(NamedTuple):
    """An agent, by uid and name (a guest by its address), and a channel by its name."""

    agent: str
    name: str
    namespace: str
    channel: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.agent, self.namespace, self.channel


class By(NamedTuple):
    """Who has it join or leave: a principal, or an agent by its address, in a turn."""

    who: str
    turn_id: str | None = None


def joining(member: Member, start: str, by: By, now: float, after: int = 0, invitation: str | None = None) -> list[Row]:
    """An agent begins to read: from `now`, the `beginning`, or a `cursor`, which is `after`. A member stays one.

    A guest is one by its `invitation`, and by this one from now on.
    """
    place: tuple[Any, ...] = (after, after) if start == "cursor" else ()
    agent, namespace, name = member.key
    told = canonical({"agent": member.name, "start": start}).decode()
    return [
        (sql.JOINED_EVENT, (now, namespace, name, *by, told, namespace, name, agent), -1),
        (sql.JOIN[start], (*place, now, namespace, name, agent), -1),
        *([] if invitation is None else [(INVITED_BY, (invitation, agent, namespace, name), -1)]),
        *joined(agent, namespace, name, now),
    ]


def joined(agent: str, namespace: str, name: str, now: float) -> list[Row]:
    """What is kept of a subscription that is there."""
    return [
        (sql.JOINED, (now, namespace, name, agent), -1),
        (sql.USED, (now, namespace, name), -1),
    ]


def left_by(member: Member, by: By, now: float, handling: str = "", why: str = "") -> list[Row]:
    """Leave, and tell of it; `why`, where nobody wanted to."""
    agent, namespace, name = member.key
    told = canonical({"agent": member.name, **({"reason": why} if why else {})}).decode()
    event = (sql.LEFT_EVENT, (now, namespace, name, *by, told, agent, namespace, name), -1)
    return [event, *leaving(agent, namespace, name, now, handling)]


def leaving(agent: str, namespace: str, name: str, now: float, handling: str = "") -> list[Row]:
    """An agent reads no more; what is in its inbox stays there.

    But what it has of a queue, and has not begun, goes back to where it was; `handling` is the message of its turn.
    """
    return [
        *((text, (agent, namespace, name, handling), -1) for text in queues.BACK),
        (sql.LEFT, (now, agent, namespace, name), -1),
        (sql.LEFT_NOTHING, (agent, namespace, name), -1),
        (sql.LEAVE, (agent, namespace, name), -1),
        (queues.PROMOTE, (namespace, name), -1),
        (sql.USED, (now, namespace, name), -1),
    ]


def going(agent: str) -> list[Row]:
    """First of what removes an agent: what it has of queues, and has not begun, goes back to where it was.

    Keys are free of it by what is in its inbox, and not by where it is a member: it may have left meanwhile.
    """
    message, queued, taken = ((text, (agent,), -1) for text in queues.BACK_OF_MEMBER)
    return [message, queued, (queues.PROMOTE_OF_HOLDER, (agent, agent), -1), taken]


def gone(agent: str, now: float) -> list[Row]:
    """Last of what removes an agent: it was a member of nothing any more; its subscriptions went with it."""
    return [(sql.LEFT_ALL, (now, agent), -1)]
