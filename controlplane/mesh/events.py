"""From the feedback log to inboxes: events that an agent's spec watches, each once, in their order.

An agent sees the events of its own namespace, and what it watches of them; none of its own doing, unless
it says so, because it would wake itself. A place in the log moves in the unit that puts what it passed
into the inbox; ids are made of the place and a number that counts what it told, so they tell nothing of
events that are others'. Events that nobody watches cost no write: how far a place has looked in vain is
remembered here, and written down once in a long while. A route that reads the log again was set back; it counts on,
so what it gets again are other messages.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from controlplane.mesh.again import Again, passed, reading
from controlplane.mesh.batches import Row, batch, fitting, put
from controlplane.mesh.rows import Commit, Rows
from controlplane.store import statements as sql
from controlplane.store import watching
from schemas.base import rfc3339, short_id

LOOK_MAX = 256
IN_VAIN_MAX = 1_000
PLACES_MAX = 500  # are looked at in one go
FIRST = ("", "")
SOON_S = 0.02
UNASKED = "turns.summary"  # told of every agent that did anything, also because of a watch


class Place(NamedTuple):
    """Where an agent's watch stands in the log."""

    agent: str
    watch: str
    position: int
    told: int
    since: float
    filter: str
    debounce_s: float
    batch_max: int
    namespace: str
    name: str
    last: int
    replay: str | None = None
    until: int | None = None
    resume: int | None = None

    @property
    def again(self) -> Again | None:
        """What it reads again, if it does."""
        return reading(self.agent, self.replay, self.position, self.until, self.resume, self.namespace, self.name)

    @property
    def behind(self) -> bool:
        return self.position < self.last or self.again is not None

    @property
    def key(self) -> tuple[str, str]:
        return self.agent, self.watch


class Happened(NamedTuple):
    """An event, and the agent of the turn that made it."""

    cursor: int
    type: str
    time: float
    kind: str
    name: str
    principal: str | None
    change_id: str | None
    turn_id: str | None
    data: str
    by: str | None


class Events:
    """Delivers events to the inboxes of agents that watch them."""

    def __init__(
        self, reader: Rows, commit: Commit, ring: Callable[[str], None], clock: Callable[[], float], inbox_max: int
    ) -> None:
        self._reader = reader
        self._commit = commit
        self._ring = ring
        self._clock = clock
        self._inbox_max = inbox_max
        self._moving: set[tuple[str, str]] = set()
        self._seen: dict[tuple[str, str], tuple[int, int]] = {}  # from which place, and how far in vain
        self._next: asyncio.TimerHandle | None = None
        self._from, self._passed = FIRST, set[tuple[str, str]]()
        self._owed = False  # something came that the round under way may have passed by
        self._round = self._going = False
        self._ended = False

    def end(self) -> None:
        """Look no more."""
        self._ended = True
        if self._next is not None:
            self._next.cancel()

    def kick(self, wait_s: float = SOON_S) -> None:
        """Something was committed; it is looked at soon, together with what follows at once."""
        loop = asyncio.get_running_loop()
        if self._ended or (self._next is not None and self._next.when() <= loop.time() + wait_s):
            return
        if self._next is not None:
            self._next.cancel()
        self._next = loop.call_later(wait_s, self._kicked)

    def _kicked(self) -> None:
        self._next, self._owed = None, True
        if not self._going:
            self.look()

    def _go_on(self) -> None:
        self._going = False
        if not self._ended:
            self.look()

    def look(self) -> None:
        """Bring to some places what they have not passed yet; after something came, at once to all others, too."""
        if self._from == FIRST:
            self._round, self._owed = self._owed, False
        rows = self._reader.rows(watching.PLACES, *self._from, PLACES_MAX)
        self._passed.update((row[0], row[1]) for row in rows)
        self._from = (rows[-1][0], rows[-1][1]) if len(rows) == PLACES_MAX else FIRST
        try:
            self._look_at_all([place for row in rows if (place := Place(*row)).behind])
        except Exception:
            self._owed = True  # the rest of these have their turn in another round; the others are not kept from theirs
            raise
        if self._from == FIRST:
            self._seen = {key: self._seen[key] for key in self._passed & self._seen.keys()}
            self._round, self._passed = False, set()
        if (self._round or self._owed) and not self._going:
            self._going = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _look_at_all(self, places: Sequence[Place]) -> None:
        """Those that stand at one event share its reading."""
        read: dict[tuple[str, int], list[Happened]] = {}
        for place in places:
            start = self._start(place)
            if place.key in self._moving or (place.last <= start and place.again is None):
                continue
            if (happened := read.get((place.namespace, start))) is None:
                rows = self._reader.rows(watching.EVENTS_AFTER, place.namespace, start, LOOK_MAX)
                happened = read[place.namespace, start] = [Happened(*row) for row in rows]
            self._look_at(place, happened)

    def _start(self, place: Place) -> int:
        """Behind which event a place goes on; one that was set back has seen nothing in vain."""
        begun, seen = self._seen.get(place.key, (0, 0))
        return max(place.position, seen) if begun == place.position else place.position

    def _look_at(self, place: Place, happened: Sequence[Happened]) -> None:
        full = len(happened) == LOOK_MAX
        last = happened[-1].cursor if happened else place.last
        end = last if full else max(place.last, last)
        again = place.again
        if again is not None and end >= again.until:
            happened = [it for it in happened if it.cursor <= again.until]
            full, end = False, again.until
        wanted = orjson.loads(place.filter)
        found = [it for it in happened if matches(wanted, place, it)]
        left = found[0].time + place.debounce_s - self._clock() if found else 0.0
        if 0 < left <= place.debounce_s:  # else it is over, or the clock was set
            self._seen[place.key] = place.position, found[0].cursor - 1
            self.kick(left)
        elif found:
            self._deliver(place, found, end)
        elif end - place.position > IN_VAIN_MAX or (again is not None and end == again.until):
            self._move(place, end, 0, [])
        else:
            self._seen[place.key] = place.position, end
            if full:
                self.kick()

    def _deliver(self, place: Place, found: Sequence[Happened], end: int) -> None:
        waiting = self._reader.one(sql.BACKLOG, place.agent, self._inbox_max)
        if waiting is None or waiting[0] >= self._inbox_max:
            return
        now = self._clock()
        bodies = [_envelope(place, place.told + number, it) for number, it in enumerate(found)]
        if place.batch_max == 1:
            rows = [put(place.agent, message_id, "message", body, now) for message_id, body in bodies]
            self._move(place, end, len(found), rows)
            return
        taken = min(place.batch_max, fitting([body for _, body in bodies]))
        parts = (place.watch, place.since, place.told, taken)
        row = batch(place.agent, f"/{place.namespace}/feedback", parts, [body for _, body in bodies[:taken]], now)
        self._move(place, end if taken == len(found) else found[taken - 1].cursor, taken, [row])

    def _move(self, place: Place, to: int, told: int, rows: Sequence[Row]) -> None:
        self._moving.add(place.key)
        to, ended = passed(place.again, to, self._clock())
        step = (watching.PLACE_MOVE, (to, told, place.agent, place.watch, place.position), 1)

        def moved(outcome: str, _detail: str) -> None:
            self._moving.discard(place.key)
            if outcome == "ok":
                self._seen.pop(place.key, None)
                self.kick()
                if rows:
                    self._ring(place.agent)
            elif outcome == "conflict":  # it was set back in between
                self.kick()

        self._commit("feedback", [step, *rows, *ended], moved, 1)


def matches(wanted: dict[str, Any], place: Place, it: Happened) -> bool:
    """Whether an event is what a place waits for."""
    if wanted["kind"] is not None and wanted["kind"] != it.kind:
        return False
    if wanted["name"] is not None and wanted["name"] != it.name:
        return False
    if not wanted["own"] and _own(place, it):
        return False
    return of_types(wanted["types"], it.type)


def of_types(types: Sequence[str], type_: str) -> bool:
    """Whether an event of this type is among those that are watched; without any, all but one are."""
    return any(_of_type(type_, pattern) for pattern in types) if types else type_ != UNASKED


def _own(place: Place, it: Happened) -> bool:
    about = it.kind == "Agent" and it.name == place.name
    return about or it.by == place.agent or it.principal == f"{place.namespace}/{place.name}"


def _of_type(type_: str, pattern: str) -> bool:
    return type_.startswith(pattern[:-1]) if pattern.endswith(".*") else type_ == pattern


def _envelope(place: Place, number: int, it: Happened) -> tuple[str, str]:
    """An event as a message, and its id."""
    message_id = short_id("msg", "feedback", place.agent, place.watch, place.since, number, near=it.time)
    at = rfc3339(datetime.fromtimestamp(it.time, UTC))
    event = {
        "type": it.type,
        "time": at,
        "subject": {"kind": it.kind, "namespace": place.namespace, "name": it.name},
        "principal": it.principal,
        "change_id": it.change_id,
        "turn_id": it.turn_id,
        "data": orjson.Fragment(it.data),
    }
    body = {
        "specversion": "1.0",
        "id": message_id,
        "source": f"/{place.namespace}/feedback",
        "type": "steward.feedback",
        "subject": f"{place.namespace}/{it.name}",
        "time": at,
        "datacontenttype": "application/json",
        "data": event,
    }
    return message_id, orjson.dumps(body).decode()
