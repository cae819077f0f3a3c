"""Guests: members of a channel that are agents of another namespace, for as long as their invitation stands.

Whatever gives a guest a message is a unit that holds only if its invitation does, at that moment. One that is revoked
or over ends the membership, as if it had been left; both namespaces are told by an event.
"""

from typing import NamedTuple

from controlplane.mesh.membership import By, Member, left_by
from controlplane.mesh.rows import Commit, Row, Rows
from controlplane.store import invitations as sql
from controlplane.store.statements import EVENT
from schemas.base import PLANE_NAME, canonical

ENDED_MAX = 200  # in one sweep
WHY = "INVITATION_OVER"


class Guest(NamedTuple):
    """One whose invitation is no more."""

    channel: str
    agent: str
    invitation: str
    namespace: str
    name: str
    of_namespace: str
    agent_name: str


def still(channel: str, agent: str, now: float) -> Row:
    """At the head of a unit: that it is a guest, and may be."""
    return sql.STILL_GUEST, (channel, agent, now), 1


class Guests:
    """Ends the memberships of those whose invitation is no more."""

    def __init__(self, reader: Rows, commit: Commit) -> None:
        self._reader = reader
        self._commit = commit
        self._ending: set[tuple[str, str]] = set()

    def holds(self, channel: str, agent: str, now: float) -> bool:
        """Whether a guest may have anything; else the sweep ends it."""
        return self._reader.one(sql.IS_GUEST, channel, agent, now) is not None

    def sweep(self, now: float) -> None:
        """Some of those that are guests no more."""
        for row in self._reader.rows(sql.OVER, now, ENDED_MAX):
            self._end(Guest(*row), now)

    def _end(self, it: Guest, now: float) -> None:
        key = (it.channel, it.agent)
        if key in self._ending:
            return
        member = Member(it.agent, f"{it.of_namespace}/{it.agent_name}", it.namespace, it.name)
        about = {"channel": f"{it.namespace}/{it.name}", "invitation_id": it.invitation, "reason": WHY}
        told = ("invitation.ended", now, "Agent", it.of_namespace, it.agent_name, None, None, canonical(about).decode())
        rows: list[Row] = [
            (sql.NO_MORE_GUEST, (it.channel, it.agent, now), 1),
            *left_by(member, By(PLANE_NAME), now, why=WHY),
            (EVENT, told, 1),
        ]
        self._ending.add(key)

        def ended(_outcome: str, _detail: str) -> None:
            self._ending.discard(key)

        self._commit("uninvited", rows, ended, 1)
