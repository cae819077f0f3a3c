"""How many agents a namespace may have, counted at a spawn: in full only as its room becomes little.

What the plane adds meanwhile is held against the limit by itself; of both together, some may come to be too many.
"""

from dataclasses import dataclass
from typing import Any

from controlplane.effects.reading import Reader
from controlplane.resources.problems import problem
from controlplane.store import statements as sql
from schemas.ports import Clock
from schemas.problem import Next, Problem

COUNTED_S = 60.0


@dataclass(slots=True)
class _Room:
    """What may be spawned before agents are counted again."""

    left: int
    until: float


class Quota:
    """The agents of each namespace."""

    def __init__(self, reader: Reader, steady: Clock, agents_max: int) -> None:
        self._reader = reader
        self._steady = steady
        self._most = agents_max
        self._rooms: dict[str, _Room] = {}

    def lacks(self, namespace: str, more: int) -> Problem | None:
        """Why so many can not be spawned; else they have their room."""
        room, now = self._rooms.get(namespace), self._steady()
        if room is None or room.left < more or room.until < now:
            there = int(self._reader.rows(sql.AGENTS_OF, namespace, self._most)[0][0])
            if there + more > self._most:
                return self._problem(namespace, there, more)
            self._rooms = {name: it for name, it in self._rooms.items() if it.until >= now}
            room = self._rooms[namespace] = _Room(max(more, (self._most - there) // 2), now + COUNTED_S)
        room.left -= more
        return None

    def _problem(self, namespace: str, there: int, more: int) -> Problem:
        detail = f"{there} agents are in {namespace}, {more} more would pass the limit of {self._most}"
        look = Next(operation="agents.list", arguments={"namespace": namespace}, why="shows which could be deleted")
        about: dict[str, Any] = {"namespace": namespace, "agents": there, "more": more, "agents_max": self._most}
        return problem("QUOTA", detail, next=[look], **about)
