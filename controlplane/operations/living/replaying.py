"""`routes.replay`: a route reads its source again; it is a change from the moment it is asked.

Change, claim, the replay's row, and the place that is set back are one unit, so that no death of anybody comes in
between; from there on delivery goes forward as ever. A newer one takes the place of an older, and goes on, once it is
done, where the route was before both. While the route is paused its worker handles nothing, so only that it was begun
is claimed. Of a poll it is claimed that its worker, who alone knows the place, went back, which it may refuse.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlmodel import Session

from controlplane.mesh.again import Again, over
from controlplane.operations.living import envelopes, places
from controlplane.operations.living.lookup import FoundAgent
from controlplane.operations.living.places import Back, Source
from controlplane.operations.oneshots import Act, Beside, OneShots, Wish, preview
from controlplane.operations.replays import replays
from controlplane.operations.workers import worker_name
from controlplane.store import replays as sql
from controlplane.store import statements
from controlplane.store.store import Store
from controlplane.store.unit import Scalar, Unit
from schemas.base import short_id, turn_of
from schemas.plan import Preview
from schemas.ports import GatePort
from schemas.principal import Call
from schemas.replay import REPLAY
from schemas.replaying import Replayed, ReplayInput

BEGUN_WITHIN_S = 60.0
A_SECOND = 10  # messages that a route passes on at least
WITHIN_S_MAX = 86_400.0
_ASKED = {"dry_run", "request_id"}


class Replaying:
    """Sets routes back."""

    def __init__(self, store: Store, gate: GatePort) -> None:
        self._store = store
        self._gate = gate
        self._oneshots = OneShots(store)

    async def replay(self, call: Call, given: ReplayInput, worker: FoundAgent) -> Replayed | Preview:
        """Begin it, or end the one that is under way."""

        def seen(session: Session) -> _Replay:
            return _Replay(call, given, worker.uid, *places.look(session, given, worker.uid))

        def wished(session: Session) -> tuple[Wish, Beside]:
            it = seen(session)
            return it.wish, it.unit

        it = await self._store.read(seen)
        if call.dry_run:
            return preview(call, it.wish, it.would)
        change_id = await self._oneshots.begin_seen(call, wished)
        if change_id is not None:
            await self._gate.control(*it.order, {})
        shown = await self._store.read(lambda session: replays(session, [worker.uid]).get(worker.uid))
        return Replayed(namespace=given.namespace, name=given.name, change_id=change_id, replay=shown)


class _Replay:
    """One call: what it wants, says, writes."""

    def __init__(self, call: Call, given: ReplayInput, agent: str, source: Source, back: Back | None) -> None:
        self._call, self._given, self._agent, self._source, self._back = call, given, agent, source, back
        self._id = short_id("replay", agent, source.last_replay, call.principal.identity, call.now)

    @property
    def wish(self) -> Wish:
        """The one act: that the source was read again, that it was begun, or that it is over."""
        asked = self._given.model_dump(mode="json", exclude=_ASKED)
        if self._given.cancel:
            known = self._source.open
            acts = [] if known is None else [self._act(f"replay.{known['replay_id']}.over", "running", "cancelled")]
        elif self._back is None:
            acts = []
        else:
            state = "begun" if self._source.paused or self._source.kind == "events" else "done"
            after = self._back.start if self._back.value is None else self._back.value
            acts = [self._act(f"replay.{self._id}.{state}", self._source.position, after)]
        return Wish(self._given.namespace, asked, acts, undo="none")

    def _act(self, measure: str, before: Any, after: Any) -> Act:
        total = (self._back.total(self._source) if self._back is not None else None) or 0
        done = measure.endswith(".done")
        within_s = min(WITHIN_S_MAX, BEGUN_WITHIN_S + (total / A_SECOND if done else 0))
        path = "/status/replay" if self._given.cancel else "/status/source"
        return Act(
            kind="Route",
            namespace=self._given.namespace,
            name=self._given.name,
            measure=measure,
            verb="",
            told={},
            path=path,
            before=before,
            after=after,
            uid=self._agent,
            generation=self._source.generation,
            within_s=within_s,
            fidelity="estimated" if done and self._source.kind == "channel" else "exact",
        )

    @property
    def order(self) -> tuple[str, str]:
        """What the gate is told when it is written."""
        return ("deliver", self._source.uid) if self._source.kind == "channel" else ("reload", self._agent)

    @property
    def would(self) -> list[str]:
        """What would be done, a sentence each."""
        route = f"route {self._given.namespace}/{self._given.name}"
        if self._given.cancel:
            return [f"{route} would go on where it was"] if self._source.open is not None else []
        if self._back is None:
            return []
        return [it for it in (self._what(route), self._gap(), self._overtaken(), _KEYS[self._back.keys]) if it]

    def _what(self, route: str) -> str:
        assert self._back is not None
        total = self._back.total(self._source)
        if self._source.kind == "poll":
            return f"{route} would read its poll from {self._back.value!r} on again"
        many = "what there is" if total is None else f"{total} messages"
        later = "; it is paused, and begins when it is resumed" if self._source.paused else ""
        return f"{route} would read {many} again{later}"

    def _gap(self) -> str:
        gap = self._back.gap if self._back is not None else None
        return "" if gap is None else f"retention took positions {gap[0]} to {gap[1]}, which are not read again"

    def _overtaken(self) -> str:
        known = self._source.open
        return "" if known is None else f"it takes the place of replay {known['replay_id']}"

    def unit(self, change_id: str) -> Unit:
        """What is written beside the change."""
        unit, known = Unit(), self._source.open
        if self._given.cancel and known is not None:
            return self._goes_on(unit, known)
        assert self._back is not None
        message_id = self._told(unit, {"value": self._back.value}) if self._source.kind == "poll" else None
        gap = self._back.gap or (None, None)
        by = self._call.principal.name
        head: list[Scalar] = [self._agent, self._id, self._source.uid, self._back.keys, self._call.now, by]
        places_ = [change_id, self._back.start, self._back.until, self._source.resume, *gap, message_id]
        unit.raw(sql.BEGIN, [*head, *places_, self._source.last_replay], expect=1)
        return self._set_back(unit, self._back.start)

    def _goes_on(self, unit: Unit, known: Mapping[str, Any]) -> Unit:
        if self._source.kind == "poll":
            self._told(unit, {"cancel": known["replay_id"]})
        about = (known["until_position"] or 0, self._source.resume, self._given.namespace, self._given.name)
        again = Again(self._agent, known["replay_id"], *about)
        unit.rows(over(again, "cancelled", self._call.now))
        if self._source.kind != "poll":
            forward = sql.ON_OF_CHANNEL if self._source.kind == "channel" else sql.ON_OF_EVENTS
            unit.raw(forward, [self._source.resume, *self._place, self._source.resume])
        return unit

    def _set_back(self, unit: Unit, to: int) -> Unit:
        """From where it was seen, or came since, which is where it goes on."""
        if self._source.kind != "poll":
            of_channel = self._source.kind == "channel"
            resume = sql.RESUME_OF_CHANNEL if of_channel else sql.RESUME_OF_EVENTS
            unit.raw(resume, [*self._place, self._agent, *self._place])
            back = sql.BACK_OF_CHANNEL if of_channel else sql.BACK_OF_EVENTS
            unit.raw(back, [to, *self._place, self._source.position], expect=1)
        return unit

    @property
    def _place(self) -> tuple[str, str]:
        return self._source.uid, self._agent

    def _told(self, unit: Unit, data: dict[str, Any]) -> str:
        """A message to the worker, whose own the place of a poll is."""
        made = short_id("msg", self._id)
        namespace, name = self._given.namespace, worker_name(self._given.name)
        body = envelopes.envelope(self._call, made, f"{namespace}/{name}", orjson.dumps(data), type=REPLAY)
        turn_id = turn_of(self._agent, made)
        unit.raw(statements.PUT, [self._agent, made, "message", body.decode(), self._call.now, turn_id], expect=1)
        return made


_KEYS = {
    "same": "what was passed on keeps its keys: it is done again only where its turn is off record by now and the sink "
    "honours no keys",
    "new": "all of it is done again, under new keys",
}
