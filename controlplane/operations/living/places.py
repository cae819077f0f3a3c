"""Where a route's source stands, and where it is set back to. Reads only.

A channel and the feedback log have places, numbers that grow; which one a time was at is found by halving. What
retention took can not be read again: a cursor before that is told as a gap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import text
from sqlmodel import Session

from controlplane.operations.hourly import EVENT_AT, MESSAGE_AT, last_before
from controlplane.operations.living import paging
from controlplane.operations.observing import rows
from controlplane.operations.snapshot import read_known
from controlplane.resources.problems import refuse
from schemas.base import short_id
from schemas.problem import Next, Refusal
from schemas.replay import Keys
from schemas.replaying import ReplayInput, Value

CHANNEL = text(
    "SELECT c.uid, c.mode, c.next_position - 1 AS last, s.position, (SELECT MIN(m.position) FROM channel_message m"
    " WHERE m.channel = c.uid) AS first FROM channel c JOIN subscription s ON s.channel = c.uid AND s.agent = :agent"
    " WHERE c.namespace = :namespace AND c.name = :name"
)
EVENTS = text(
    "SELECT w.watch AS uid, w.position, (SELECT MIN(e.cursor) FROM event e WHERE e.namespace = :namespace) AS first,"
    " (SELECT MAX(e.cursor) FROM event e WHERE e.namespace = :namespace) AS last FROM feedback_watch w"
    " WHERE w.agent = :agent"
)
LAST = text("SELECT * FROM replay WHERE agent = :agent")
FITS = {"channel": {"after", "since", "until"}, "events": {"since", "until"}, "poll": {"value"}}
Kind = Literal["channel", "events", "poll"]


@dataclass(frozen=True)
class Source:
    """A route's source: what it is of, where it stands, and the replay of it that is under way."""

    kind: Kind
    uid: str
    position: int = 0
    first: int = 1
    last: int = 0
    open: Mapping[str, Any] | None = None
    generation: int = 0
    paused: bool = False
    last_replay: str = ""

    @property
    def resume(self) -> int:
        """Where it goes on once it has read again: where it was before anything was set back."""
        return max(self.position, self.open["resume_position"] if self.open is not None else 0)


@dataclass(frozen=True)
class Back:
    """Behind which place it begins, up to which it reads again, and what is missing of that."""

    start: int = 0
    until: int | None = None
    gap: tuple[int, int] | None = None
    value: Value | None = None
    keys: Keys = "new"

    def total(self, source: Source) -> int | None:
        """How many messages it reads again; None where that is not known before."""
        if source.kind != "channel" or self.until is None:
            return None
        return max(0, self.until - max(self.start, source.first - 1))


def look(session: Session, given: ReplayInput, agent: str) -> tuple[Source, Back | None]:
    """A route's source, and where it is set back to; None where there is nothing behind that. Raises Refusal."""
    known = read_known(session, [("Route", given.namespace, given.name)])["Route", given.namespace, given.name]
    wanted: dict[str, Any] = known.spec["source"]
    kind: Kind = "channel" if "channel" in wanted else "events" if "events" in wanted else "poll"
    begins = [it for it in ("after", "since", "value") if _given(given, it)]
    if len(begins) > 1:
        detail = f"it begins behind one place: give one of {' and '.join(begins)}"
        raise refuse("INVALID_VALUE", detail, field=f"/{begins[1]}", given=begins)
    if given.cancel and (begins or given.until is not None or given.keys is not None):
        raise refuse("INVALID_VALUE", "cancel takes nothing beside it", field="/cancel", given=begins)
    if unfit := [it for it in ("after", "since", "until", "value") if _given(given, it) and it not in FITS[kind]]:
        detail = f"the source of the route is {_WORDS[kind]}, which has no {unfit[0]}"
        raise refuse("INVALID_VALUE", detail, field=f"/{unfit[0]}", source=kind)
    known_replay = rows(session, LAST, agent=agent)
    found = [it for it in known_replay if it["ended_at"] is None]
    stopped = rows(session, text("SELECT stopped FROM agent WHERE uid = :agent"), agent=agent)
    about: dict[str, Any] = {"generation": known.generation, "paused": bool(stopped and stopped[0]["stopped"])}
    about["last_replay"] = known_replay[0]["replay_id"] if known_replay else ""
    if kind == "poll":
        poll = wanted["poll"]
        uid = short_id("poll", poll["connection"], poll["statement"])
        source = Source(kind, uid, open=found[0] if found and found[0]["source"] == uid else None, **about)
        return source, Back(value=poll["begin"] if given.value is None else given.value, keys=_keys(given, kind))
    source = _standing(session, given, kind, wanted, agent, found, about)
    return source, _back(session, given, source)


_WORDS = {"channel": "a channel", "events": "the feedback log", "poll": "a polled database"}


def _given(given: ReplayInput, name: str) -> bool:
    return getattr(given, name) is not None


def _standing(
    session: Session,
    given: ReplayInput,
    kind: Kind,
    wanted: dict[str, Any],
    agent: str,
    found: list[Any],
    about: dict[str, Any],
) -> Source:
    place = {"agent": agent, "namespace": given.namespace}
    if kind == "channel":
        listed = rows(session, CHANNEL, name=wanted["channel"], **place)
    else:
        listed = rows(session, EVENTS, **place)
    if not listed:
        raise _not_there(given, kind)
    row = listed[0]
    if row.get("mode") == "queue":
        detail = "a queue gives each message to one of its members, and keeps no place to read again from"
        raise refuse("INVALID_VALUE", detail, field="/name", source=wanted["channel"])
    last = row["last"] or 0
    first = row["first"] if row["first"] is not None else last + 1
    again = found[0] if found and found[0]["source"] == row["uid"] else None
    return Source(kind, row["uid"], row["position"], first, last, again, **about)


def _back(session: Session, given: ReplayInput, source: Source) -> Back | None:
    if given.cancel:
        return None
    of = source.uid if source.kind == "channel" else given.namespace
    query = MESSAGE_AT if source.kind == "channel" else EVENT_AT

    def before(moment: Any) -> int:
        return last_before(session, query, of, source.first, source.last, moment.timestamp())

    start, gap = source.first - 1, None
    if given.after is not None:
        start = paging.position(given.after, source.last)
        gap = (start + 1, source.first - 1) if start < source.first - 1 else None
    elif given.since is not None:
        start = before(given.since)
    until = source.resume if given.until is None else min(source.resume, before(given.until))
    return Back(start, until, gap, keys=_keys(given, source.kind)) if start < until else None


def _keys(given: ReplayInput, kind: Kind) -> Keys:
    """Under which keys; what has none of its own is not repeated unless that is said."""
    if kind == "channel":
        return given.keys or "same"
    if given.keys == "new" or given.cancel:
        return "new"
    detail = f"what comes from {_WORDS[kind]} has no keys that it keeps, so it would be done again: say that with `new`"
    again = given.model_dump(mode="json", exclude_none=True, exclude={"request_id"}) | {"keys": "new"}
    step = Next(operation="routes.replay", arguments=again, why="does it again, under new keys", clears=True)
    raise refuse("INVALID_VALUE", detail, field="/keys", next=[step], source=kind)


def _not_there(given: ReplayInput, kind: Kind) -> Refusal:
    named = {"namespace": given.namespace, "name": given.name}
    step = Next(operation="routes.get", arguments=named, why="shows when it is")
    detail = f"route {given.namespace}/{given.name} does not read {_WORDS[kind]} yet"
    return refuse("NOT_SET_UP", detail, retry_after_s=1.0, next=[step], kind="Route", **named)
