"""Channels that are made by first use: in the unit that first publishes to them, or first joins them. Pure.

Such a channel is ephemeral: it vanishes when it is empty and nobody uses it. Who wants it to stay proposes it, and
it is declared from then on. A namespace has at most `CHANNELS_MAX`; beyond that a name that is not there is refused.
"""

from collections.abc import Sequence
from typing import Any

from controlplane.resources.problems import problem
from controlplane.store import channels as sql
from schemas.base import canonical
from schemas.channel import CHANNELS_MAX, FIRST_USE, ChannelSpec
from schemas.problem import Problem

Row = tuple[str, Sequence[Any], int]
SPEC = ChannelSpec(**FIRST_USE)
_RUNNING = (SPEC.retention_s, SPEC.backlog_messages_max, SPEC.attempts_max)
_SPEC = canonical(SPEC.model_dump(mode="json")).decode()


def made(uid: str, namespace: str, name: str, by: str, now: float, turn_id: str | None = None) -> list[Row]:
    """Make the channel, unless it is there; `uid` is of this very use, `by` a principal or an agent's address."""
    about = (namespace, name)
    told = canonical({"uid": uid, "first_use": True}).decode()
    return [
        (sql.MAKE, (*about, uid, _SPEC, now, now, *about, namespace, CHANNELS_MAX, CHANNELS_MAX), -1),
        (sql.MAKE_RUN, (sql.place_of(*about), *_RUNNING, now, uid), -1),
        (sql.MADE_EVENT, (now, *about, by, turn_id, told, uid), -1),
    ]


def too_many(namespace: str) -> Problem:
    """Why no more channels are made by first use."""
    detail = f"{namespace} has {CHANNELS_MAX} channels, which is the most that first uses make"
    return problem("QUOTA", detail, limit="channels", max=CHANNELS_MAX, namespace=namespace)
