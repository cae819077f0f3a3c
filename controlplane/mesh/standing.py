"""Who of a queue's members may have more, remembered between looks.

All members are counted when something may have changed who they are; whoever finished a message is counted anew by
itself; what was given is known. It is only read while no unit that gives is on its way, and is a hint: that unit holds
only if the member is still one, is not stopped, and its invitation stands.
"""

from dataclasses import dataclass, field

from controlplane.mesh.rows import Rows
from controlplane.store import queues as sql

QUEUES_MAX = 1_000


@dataclass(slots=True)
class Standing:
    """The members of one queue that have room, in the order in which they are next; and who of them are guests."""

    most: int
    free: dict[str, int] = field(default_factory=dict)
    guests: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)  # they hold less than is known

    def put(self, agent: str, held: int, invitation: str | None) -> None:
        """What one holds by now."""
        self.free.pop(agent, None)
        if held < self.most:
            self.free[agent] = self.most - held
        if invitation is not None:
            self.guests.add(agent)

    def take(self, agent: str) -> None:
        """One message more for it; who has room still is next when all others were."""
        left = self.free.pop(agent) - 1
        if left:
            self.free[agent] = left


class Standings:
    """Of the queues that something goes through."""

    def __init__(self, reader: Rows) -> None:
        self._reader = reader
        self._of: dict[str, Standing] = {}

    def now(self, channel: str, most: int, at: float) -> Standing:
        """Who has room; read where it must be."""
        known = self._of.get(channel)
        if known is None or known.most != most:
            if len(self._of) >= QUEUES_MAX:
                self._of.clear()
            known = self._of[channel] = Standing(most)
            for row in self._reader.rows(sql.MEMBERS, channel, at):
                known.put(*row)
            return known
        while known.finished:
            agent = known.finished.pop()
            known.free.pop(agent, None)
            for row in self._reader.rows(sql.MEMBER, channel, at, agent):
                known.put(*row)
        return known

    def finished(self, channel: str, agent: str) -> None:
        """A member has a message less."""
        if (known := self._of.get(channel)) is not None:
            known.finished.add(agent)

    def forget(self, channel: str) -> None:
        """Members may have come or gone, or been stopped or woken."""
        self._of.pop(channel, None)

    def forget_all(self) -> None:
        """Whatever nobody was told of is seen from now on."""
        self._of.clear()
