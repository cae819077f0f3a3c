"""What a turn's buffered effects become: rows of the unit that commits them, and whom to ring afterwards.

Pure: entries, the turn and the moment in; statements out. Each kind of entry has one function. Ids
are hashes of the turn and the position, so that a retry makes the same ones; nothing here is done
twice, because the segment that holds an entry commits once, at its expected journal position.
"""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from controlplane.effects import channeling, scoping
from controlplane.effects.chaining import opened_by
from controlplane.effects.children import born
from controlplane.effects.gathers import gathering_id, member_id, settled
from controlplane.effects.turnref import (
    Aftermath,
    Made,
    Outside,
    Passed,
    Row,
    TurnRef,
    at_time,
    envelope,
    message_id,
    reach,
    split,
)
from controlplane.mesh.publishing import expiring
from controlplane.resources.problems import problem
from controlplane.store import queues
from controlplane.store import statements as sql
from controlplane.store.gathers import GATHER
from controlplane.store.polled import POLL_EVENT
from controlplane.store.schedules import Schedule, first_at
from schemas.base import canonical, short_id
from schemas.polled import FAILED, POLL, RECOVERED
from schemas.posting import Placed
from schemas.question import FOREVER
from schemas.watch import TIMER_PREFIX
from schemas.wire import Entry


def rows_of(turn: TurnRef, entries: Sequence[Entry], now: float, outside: Outside) -> Made:
    """The rows that do what the entries say; the journal's own rows are not among them."""
    rows: list[Row] = []
    after = Aftermath()
    for entry in entries:
        body = orjson.loads(entry.body)
        if entry.kind == "spawn":
            body["generation"] = outside.generations.get(body["name"], 1)
        if entry.kind in ("publish", "join"):
            body["first_use"], body["room"] = split(body["channel"]) in outside.absent, outside.room
        body["invitation"] = outside.opened.get((entry.kind, body.get("to") or body.get("channel") or ""))
        body["opened"] = body["invitation"] is not None
        body["taint"] = turn.taint or outside.trusts.get(body.get("received_over") or "")
        rows += _KINDS[entry.kind](turn, entry, body, now, after)
    return rows, after


def _await_id(turn: TurnRef, entry: Entry, body: dict[str, Any], prefix: str = "msg") -> str:
    """The id of an await, which is that of its question; a member's says what it is gathered by."""
    if (group := body.get("group")) is not None:
        return member_id(turn.turn_id, entry.branch, group, entry.position)
    return short_id(prefix, turn.turn_id, entry.branch, entry.position, near=turn.turn_id)


def _send(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    made = message_id(turn, entry)
    opened, within = opened_by(turn, made, body.get("budget"), now)
    how = channeling.placed_by(body, now)
    more = {"taint": body["taint"], **channeling.said(how), **within}
    text = envelope(turn, made, "steward.message", body["to"], body["data"], now, **more)
    reached = reach(turn, body["to"], opened=body["opened"])
    later = channeling.waits(after, "Agent", reached, made, text, how)
    return [*opened, *(later or _to_inbox(turn, body, made, text, how, now, after))]


def _to_inbox(
    turn: TurnRef, body: dict[str, Any], made: str, text: str, how: Placed, now: float, after: Aftermath
) -> list[Row]:
    to, reached = body["to"], reach(turn, body["to"], opened=body["opened"])
    after.agents.add(reached)
    after.passed.append(Passed(reached, made, text, None, how.plain and body.get("budget") is None))
    detail = f"{turn.address} sent it to {to}, and there is no such agent"
    data = canonical({"message_id": made, "reason": "TARGET_NOT_FOUND", "from": turn.address, "to": to}).decode()
    lost = (turn.agent, turn.namespace, split(to)[1], made, text, detail, turn.turn_id, now)
    return [
        sent(made, text, how, now, reached),
        (sql.SEND_LOST, (*lost, *reached), -1),
        (sql.SEND_LOST_EVENT, (now, turn.namespace, split(to)[1], turn.turn_id, data, *reached), -1),
    ]


def sent(made: str, text: str, how: Placed, now: float, to: tuple[str, str]) -> Row:
    """A message into the inbox of whoever has the name."""
    if how.plain:
        return sql.SEND, (made, text, now, *to), -1
    return queues.SEND_PLACED, (made, text, now, how.key, how.rank, *to), -1


def _question(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """An `ask` or a `request`: a message, and the await that its answer resolves; deadlines of a chain only narrow."""
    made = _await_id(turn, entry, body)
    until = now + body["deadline_s"]
    until = until if turn.deadline is None else min(until, turn.deadline)  # whoever asked here waits no longer
    to = body["to"]
    opened, within = opened_by(turn, made, body.get("budget"), now)
    how = channeling.placed_by(body, now)
    more = {"replyto": made, "deadline": at_time(until), **channeling.said(how), **within}
    text = envelope(turn, made, "steward.message", to, body["data"], now, **more)
    reached = reach(turn, to, opened=body["opened"])
    after.agents.add(reached)
    place = (entry.branch, entry.position) if entry.kind == "ask" else None
    after.passed.append(Passed(reached, made, text, place, body.get("budget") is None))
    if place is None or "group" in body:  # a turn that rests looks itself whether there is nobody to ask
        after.asked.append(made)
    after.awaits(until)
    after.due(how.expires_at or until)
    lost = problem("TARGET_NOT_FOUND", f"there is no agent {to}", to=to).model_dump_json()
    given = (made, turn.agent, turn.turn_id, entry.branch, entry.position, entry.kind, to, *reached, now, until)
    return [
        *opened,
        (sql.AWAIT, (*given, made), 1),
        *expiring(made, how),
        sent(made, text, how, now, reached),
        *([] if entry.kind == "ask" else _lost_request(turn, made, to, lost, now)),
        (sql.AWAIT_LOST, (lost, now, made), -1),
        (sql.JOURNAL_RESOLVED, ("failed", lost, now, made, now, "failed"), -1),
    ]


def _lost_request(turn: TurnRef, made: str, to: str, lost: str, now: float) -> list[Row]:
    """A request to nobody is answered with the Problem, like any other failure."""
    text, reply_id = reply_envelope(to, turn.address, made, orjson.loads(lost), now, failed=True)
    return [(sql.ANSWER_REQUEST_LOST, (reply_id, text, now, made), -1)]


def reply_envelope(
    by: str, to: str, await_id: str, data: Any, now: float, *, failed: bool = False, taint: str | None = None
) -> tuple[str, str]:
    """The envelope that answers a question, and its id."""
    namespace, name = split(by)
    reply_id = short_id("msg", "reply", await_id, near=await_id)
    body = {
        "specversion": "1.0",
        "id": reply_id,
        "source": f"/{namespace}/agents/{name}",
        "type": "steward.problem" if failed else "steward.reply",
        "subject": to,
        "time": at_time(now),
        "datacontenttype": "application/json",
        "data": data,
        "causationid": await_id,
        **({} if taint is None else {"taint": taint}),
    }
    return orjson.dumps(body).decode(), reply_id


def _sleep(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    made, until = _await_id(turn, entry, body), now + body["seconds"]
    after.awaits(until)
    given = (made, turn.agent, turn.turn_id, entry.branch, entry.position, "sleep", "time", "", "", now, until, made)
    return [(sql.AWAIT, given, 1)]


def _person(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """A question to a person: an await that `questions.answer` resolves."""
    made = _await_id(turn, entry, body, "question")
    until = FOREVER if body["deadline_s"] is None else now + body["deadline_s"]
    after.awaits(until)
    told = {"question_id": made, "question": body["question"], "choices": body["choices"],
            "until": None if until == FOREVER else at_time(until)}  # fmt: skip
    at = (turn.turn_id, entry.branch, entry.position)
    address, text = (turn.namespace, turn.name), canonical(told).decode()
    return [
        (sql.AWAIT, (made, turn.agent, *at, "question", "a person", "", "", now, until, made), 1),
        (sql.EVENT, ("question.asked", now, "Agent", *address, None, turn.turn_id, text), 1),
    ]


def _gather(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """The await behind its members; some of them may have settled in this very unit."""
    made, until = gathering_id(turn.turn_id, entry.branch, entry.position), after.open_until or now
    after.asked.append(made)
    target = f"{body['needs']} of {body['members']} at once"
    at = (turn.turn_id, entry.branch, entry.position)
    given = (made, turn.agent, *at, target, now, until, body["members"], body["needs"])
    return [(GATHER, given, 1), *settled(made, now)]


def _timer(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    schedule = Schedule(body["every_s"], body.get("cron"), body.get("zone"), body.get("missed") or "fire_once")
    due_at = first_at(schedule, body["after_s"], now)
    if due_at is None:  # an expression that is over by now
        return _timer_cancel(turn, entry, body, now, after)
    after.due(due_at)
    data = orjson.dumps(body["data"]).decode()
    given = (turn.agent, body["name"], due_at, schedule.every_s, data, schedule.cron, schedule.zone, schedule.missed)
    return [(sql.TIMER_SET, given, 1), _discard_firings(turn, body["name"])]


def _timer_cancel(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    return [(sql.TIMER_CANCEL, (turn.agent, body["name"]), -1), _discard_firings(turn, body["name"])]


def _discard_firings(turn: TurnRef, name: str) -> Row:
    """Messages of the timer as it was before, but for the one that this turn handles."""
    begin = timer_begin(name)
    return sql.DISCARD_FIRINGS, (turn.agent, turn.message_id, begin, begin), -1


def timer_mark(name: str) -> dict[str, str]:
    """How the envelope of a timer begins; nothing that anybody else wrote comes before it."""
    if name.startswith(TIMER_PREFIX):
        return {"type": "steward.watch", "subject": name.removeprefix(TIMER_PREFIX)}
    return {"type": "steward.timer", "subject": name}


def timer_begin(name: str) -> str:
    """That beginning, as text."""
    return orjson.dumps(timer_mark(name)).decode()[:-1] + ","


def _spawn(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """A child: a resource owned by its parent, with grants that are the parent's or fewer."""
    uid = short_id("agent", turn.turn_id, entry.branch, entry.position)
    start_id, to = short_id("msg", "start", uid, body["generation"]), f"{turn.namespace}/{body['name']}"
    opened, within = opened_by(turn, start_id, body.get("budget"), now)
    start = envelope(turn, start_id, "steward.start", to, None, now, **within, **scoping.within(turn, body))
    after.agents.add((turn.namespace, body["name"]))
    chain = within.get("chainid", turn.within) or None  # for life: what it does by itself is because of this, too
    return [*opened, *born(turn, uid, body, (start_id, start), chain, now)]


def _continue(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """Nothing of its own: the end of the turn leaves its message where it is, as `continued` says."""
    return []


def _poll(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """What the worker of a route says of its poll is told of the route; of what is no worker, nothing is."""
    told = {**body, "since": at_time(body["since"])}
    kind = RECOVERED if body.get("fault") is None else FAILED
    return [(POLL_EVENT, (kind, now, turn.turn_id, canonical(told).decode(), turn.agent), -1)]


def _recorded(turn: TurnRef, entry: Entry, body: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """Nothing but its record: a replay goes by it, or a reader."""
    return []


def continued(turn: TurnRef, entry: Entry) -> tuple[str, str]:
    """The id and the body of the message that the next turn handles in place of this turn's. It does not expire."""
    made = message_id(turn, entry)
    body = orjson.loads(turn.message)
    body.pop("expires", None)  # a turn has begun with it
    body |= {"id": made, "data": orjson.loads(entry.body)["data"], "continues": turn.turn_id}
    return made, orjson.dumps(body).decode()


_KINDS: dict[str, Callable[[TurnRef, Entry, dict[str, Any], float, Aftermath], list[Row]]] = {
    "send": _send,
    "publish": channeling.publish,
    "join": channeling.join,
    "leave": channeling.leave,
    "ask": _question,
    "request": _question,
    "sleep": _sleep,
    "question": _person,
    "gather": _gather,
    "timer": _timer,
    "timer_cancel": _timer_cancel,
    "spawn": _spawn,
    "continue": _continue,
    "conclude": _recorded,
    POLL: _poll,
    "order": _recorded,
}
KINDS = frozenset(_KINDS)
