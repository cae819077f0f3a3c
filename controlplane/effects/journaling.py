"""From frames to units: what each step of a turn writes, all of it or nothing.

Pure. Every unit of a turn starts with a fence, so that a host which lost its agent changes nothing; before
it stands the guard of what the turn was handed before that was committed. It names the journal position
that it expects, so that a segment commits once. State and the
consumption of the message commit only at the end; external effects are written ahead.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from controlplane.effects import abroad, scoping
from controlplane.effects.consuming import consumed, still_its
from controlplane.effects.entries import continued, reply_envelope, rows_of
from controlplane.effects.eventing import event
from controlplane.effects.gathers import counted
from controlplane.effects.turnref import Aftermath, Made, Outside, Row, TurnRef, at_time
from controlplane.store import external, questions, states, workspaces
from controlplane.store import statements as sql
from controlplane.store.states import Kept
from schemas.base import canonical, short_id
from schemas.branches import ROOT
from schemas.problem import Problem
from schemas.wire import Ask, Commit, Entry

ENDED = ("committed", "failed")
HELD_BACK = "budget "  # how the target of an effect begins that was not sent, for want of it


def park(turn: TurnRef, entries: Sequence[Entry], cpu_ns: int, now: float, outside: Outside, *, rests: bool) -> Made:
    """A segment that ends in a durable await; the turn rests there, or another branch of it goes on."""
    rows, after = rows_of(turn, entries, now, outside)
    grown = _open_or_grow(turn, "parked" if rests else "running", len(entries), cpu_ns)
    head = [*turn.given, fence(turn, now), *still_its(turn), grown]
    return [*head, *(_record(turn, entry, now) for entry in entries), *rows], after


def commit(turn: TurnRef, frame: Commit, kept: Kept, now: float, outside: Outside) -> Made:
    """The end of a turn: state, consumption, what is buffered, the answer."""
    rows, after = rows_of(turn, frame.entries, now, outside)
    held = (turn.agent, turn.epoch, turn.owner, turn.version)
    state = (kept.text, kept.chunks, frame.state_digest, frame.state_version, now, *held)
    head: list[Row] = [
        *turn.given,
        (sql.COMMIT, state, 1),
        *((states.DROP, (turn.agent, name), 1) for name in kept.drop),
        *((states.PUT, (turn.agent, name, body), 1) for name, body in kept.put),
        *((workspaces.DROP, (turn.agent, path), 1) for path in frame.gone),
        *(
            (workspaces.PUT, (turn.agent, it.path, it.digest, int(it.executable), len(it.body), it.body), 1)
            for it in frame.files
        ),
        _end(turn, "committed", len(frame.entries), frame.cpu_ns, now, frame.state_digest, None),
    ]
    rows += scoping.ended(turn, [it.kind for it in frame.entries], now)
    if frame.entries and frame.entries[-1].kind == "continue":
        after.agents.add((turn.namespace, turn.name))  # its message is there again, and nobody sent it
        over = [_go_on(turn, frame.entries[-1])]
    else:
        over = [*answered(turn, frame.reply, now, after), *_consumed(turn, after)]
    return [*head, *(_record(turn, entry, now) for entry in frame.entries), *rows, *over], after


def failed_again(turn: TurnRef, cpu_ns: int, now: float) -> list[Row]:
    """An attempt that failed and will be repeated; what was journaled stays."""
    rows: list[Row] = [*turn.given, fence(turn, now), (sql.ATTEMPT, (turn.agent, turn.message_id), 1)]
    if turn.recorded:
        grown = ("running", turn.attempts + 1, turn.epoch, cpu_ns, turn.entries, turn.turn_id, turn.entries)
        rows.append((sql.TURN_GROW, grown, 1))
    return rows


def _channel(turn: TurnRef) -> tuple[str, str | None]:
    """The channel that a message came by, with its namespace: it is about something else than the agent."""
    if turn.trigger != "message":
        return turn.namespace, None
    subject = str(orjson.loads(turn.message).get("subject") or "")
    if subject in ("", turn.address):
        return turn.namespace, None
    namespace, _, name = subject.rpartition("/")
    return namespace or turn.namespace, name


def _letter(turn: TurnRef, found: dict[str, Any], data: dict[str, Any], now: float) -> list[Row]:
    """The dead letter, and what is told of it.

    What a guest gave up of a queue is of that queue's namespace, where it can be put back; why, its own event says.
    """
    namespace, channel = _channel(turn)
    guest = turn.queue is not None and channel is not None and namespace != turn.namespace
    place = (namespace, channel) if guest else (turn.namespace, turn.name)
    detail, turn_id = (abroad.gave_up(turn), None) if guest else (plain(found["detail"]), turn.turn_id)
    why = (plain(found["reason"]), detail, turn_id, now)
    trigger = turn.trigger if turn.queue is None else "queue"
    told = {**data, "trigger": turn.trigger}
    rows: list[Row] = [
        (sql.DEAD_LETTER, (turn.agent, *place, turn.message_id, turn.message, *why, trigger, channel), 1),
        event("message.dead_lettered", turn, told, now),
    ]
    if guest:
        about = {"by": turn.address, "message_id": turn.message_id, "reason": found["reason"]}
        row = ("message.dead_lettered", now, "Channel", *place, None, None, canonical(about).decode())
        rows.append((sql.EVENT, row, 1))
    return rows


def failed_for_good(turn: TurnRef, found: dict[str, Any], cpu_ns: int, now: float, *, owned: bool = True) -> Made:
    """The message goes to the dead letters, whoever asked hears of it, and the agent goes on.

    One that was cancelled is for nobody: it is no dead letter, and is told as such.
    """
    after = Aftermath()
    text = orjson.dumps(found).decode()
    data = {"reason": found["reason"], "detail": found["detail"], "message_id": turn.message_id}
    rows: list[Row] = [
        *turn.given,
        fence(turn, now) if owned else (sql.FENCE_SUSPENDED, (now, turn.agent, turn.epoch), 1),
        _end(turn, "failed", 0, cpu_ns, now, None, text),
        (external.OUTLIVE, (turn.turn_id, HELD_BACK, HELD_BACK), -1),
        (sql.CANCEL_AWAITS, (now, turn.turn_id), -1),
    ]
    rows += scoping.ended(turn, (), now)
    if found["reason"] == "CANCELLED":
        rows.append(event("turn.cancelled", turn, data, now))
    else:
        rows += [
            *_letter(turn, found, data, now),
            event("turn.failed", turn, data, now),
            *refused(turn, found, now, after),
        ]
    return [*rows, *_consumed(turn, after)], after


def plain(text: str) -> str:
    """Text that a database keeps: what a handler raised may hold NUL."""
    return text.replace("\x00", "\\x00")


def intent(turn: TurnRef, ask: Ask, verdict: str, send_by: float, now: float, outside: Outside) -> Made:
    """An external effect, written ahead together with what was buffered before it."""
    rows, after = rows_of(turn, ask.entries, now, outside)
    head = [*turn.given, fence(turn, now), *still_its(turn), _open_or_grow(turn, "running", len(ask.entries) + 1, 0)]
    record = (
        turn.turn_id,
        ask.branch,
        ask.position,
        "effect",
        effect_body(ask),
        verdict,
        None,
        None,
        now,
        send_by,
        None,
        ask.state or None,
    )
    return [*head, *(_record(turn, entry, now) for entry in ask.entries), *rows, (sql.RECORD, record, 1)], after


def denied(turn: TurnRef, ask: Ask, refused: Problem, now: float) -> Row:
    """What is told of an effect that is not sent."""
    data = {"effect": ask.effect, "connection": ask.connection or None, "reason": refused.reason}
    return event("effect.denied" if refused.reason == "NOT_GRANTED" else "effect.refused", turn, data, now)


def effect_body(ask: Ask) -> str:
    """How an external effect stands in the journal."""
    return canonical(
        {
            "effect": ask.effect,
            "connection": ask.connection or None,
            "arguments": orjson.loads(ask.arguments),
            "purpose": ask.purpose,
        }
    ).decode()


def receipt(
    turn_id: str, branch: str, position: int, outcome: str, result: bytes, now: float, *, late: bool = False
) -> list[Row]:
    """What came of an external effect; the first receipt stays. A late one settles what was held."""
    given = (outcome, result.decode(), now, turn_id, branch, position)
    return [(sql.RECEIPT, given, 1), *([(external.RECEIVED, given, -1)] if late else [])]


def receipt_of_await(await_id: str, outcome: str, result: bytes, now: float) -> list[Row]:
    """What came of a lasting effect, once: whoever is late changes nothing."""
    text = result.decode()
    return [
        (sql.RESOLVE, (outcome, text, now, await_id), 1),
        (sql.JOURNAL_RESOLVED, (outcome, text, now, await_id, now, outcome), 1),
    ]


def intent_again(turn: TurnRef, ask: Ask, send_by: float, retry_of: str | None, now: float) -> list[Row]:
    """An effect that is sent once more, written ahead; an operator's `retry` is good for one time."""
    rows: list[Row] = [
        *turn.given,
        fence(turn, now),
        (external.RESEND, (send_by, turn.turn_id, ask.branch, ask.position), 1),
    ]
    return rows if retry_of is None else [*rows, (external.RETRIED, (retry_of,), 1)]


def hold(
    turn: TurnRef, ask: Ask, why: str, now: float, until: float, *, kind: str = "effect.in_doubt", by: str = ""
) -> list[Row]:
    """An effect in doubt, or that a budget holds back: the turn parks, or a branch waits; what is known is told."""
    return [
        *turn.given,
        fence(turn, now),
        *still_its(turn),
        _open_or_grow(turn, "parked" if ask.branch == ROOT else "running", 0, 0),
        *_held(turn.agent, (turn.namespace, turn.name), ask, why, now, until, kind, by),
    ]


def hold_after(address: tuple[str, str], ask: Ask, why: str, now: float, until: float) -> list[Row]:
    """An effect in doubt whose turn is over: it is told, and can be settled; nobody waits for it."""
    return _held(None, address, ask, why, now, until, "effect.in_doubt", "")


def _held(
    agent: str | None, address: tuple[str, str], ask: Ask, why: str, now: float, until: float, kind: str, by: str
) -> list[Row]:
    over = f" over {ask.connection}" if ask.connection else ""
    at = (ask.turn_id, ask.branch, ask.position)
    data = {
        "effect": ask.effect, "connection": ask.connection or None, "branch": ask.branch, "position": ask.position,
        "idempotency_key": f"{ask.turn_id}:{ask.branch}:{ask.position}", "why": why, "until": at_time(until),
    }  # fmt: skip
    held = (short_id("await", *at, ask.epoch, now), agent, *at, f"{by}turns.settle of {ask.effect}{over}", now, until)
    told = (kind, now, "Agent", *address, None, ask.turn_id, canonical(data).decode())
    return [(external.HOLD, held, 1), (sql.EVENT, told, 1)]


def settled(
    await_id: str,
    outcome: str,
    result: str,
    address: tuple[str, str],
    principal: str,
    about: dict[str, Any],
    now: float,
) -> list[Row]:
    """What an operator says of a held effect: the first answer counts, and `retry` leaves the intent open."""
    rows: list[Row] = [(sql.RESOLVE, (outcome, result, now, await_id), 1)]
    if outcome != "retry":
        rows.append((sql.JOURNAL_RESOLVED, (outcome, result, now, await_id, now, outcome), 1))
    text = canonical(about).decode()
    rows.append((sql.EVENT, ("effect.settled", now, "Agent", *address, principal, about["turn_id"], text), 1))
    return rows


def person_answered(
    question_id: str, answer: bytes, principal: str, address: tuple[str, str], turn_id: str, now: float
) -> list[Row]:
    """What a person says to a question, once: the first answer counts."""
    text = answer.decode()
    told = canonical({"question_id": question_id}).decode()
    return [
        (questions.ANSWER, (text, now, principal, question_id), 1),
        (sql.JOURNAL_RESOLVED, ("answered", text, now, question_id, now, "answered"), 1),
        *counted(question_id, now),
        (sql.EVENT, ("question.answered", now, "Agent", *address, principal, turn_id, told), 1),
    ]


def resolution(await_id: str, outcome: str, result: str, now: float) -> list[Row]:
    """Resolve an await, unless somebody already did."""
    return [
        (sql.RESOLVE, (outcome, result, now, await_id), -1),
        (sql.JOURNAL_RESOLVED, (outcome, result, now, await_id, now, outcome), -1),
        *counted(await_id, now),
    ]


def answered(turn: TurnRef, reply: bytes, now: float, after: Aftermath) -> list[Row]:
    """The answer to whoever asked, if anybody did. One that comes too late is told, and changes nothing."""
    if turn.replyto is None:
        return []
    told = [_late(turn, now), (sql.RESOLVE_OPERATOR, ("answered", reply.decode(), now, turn.replyto), -1)]
    if turn.by_operator:
        after.operators.append(turn.replyto)
        return told
    after.answered.append(turn.replyto)
    text, reply_id = reply_envelope(turn.address, "", turn.replyto, orjson.Fragment(reply), now, taint=turn.taint)
    after.replied = text
    return [
        *told,
        (sql.ANSWER_REQUEST, (reply_id, text, now, turn.replyto), -1),
        *resolution(turn.replyto, "answered", text, now),
    ]


def _late(turn: TurnRef, now: float) -> Row:
    data = canonical({"await_id": turn.replyto, "message_id": turn.message_id}).decode()
    return sql.LATE_EVENT, (now, turn.namespace, turn.name, turn.turn_id, data, turn.replyto), -1


def refused(turn: TurnRef, found: dict[str, Any], now: float, after: Aftermath) -> list[Row]:
    """The failure, told to whoever asked."""
    if turn.replyto is None:
        return []
    after.answered.append(turn.replyto)
    return [_late(turn, now), *refusal(turn.address, turn.replyto, abroad.for_asker(turn, found), now)]


def refusal(by: str, await_id: str, found: dict[str, Any], now: float) -> list[Row]:
    """Resolve an await as failed; a request gets it as a message."""
    text, reply_id = reply_envelope(by, "", await_id, found, now, failed=True)
    return [
        (sql.ANSWER_REQUEST, (reply_id, text, now, await_id), -1),
        *resolution(await_id, "failed", orjson.dumps(found).decode(), now),
    ]


def timed_out(await_id: str, target: str, found: dict[str, Any], now: float) -> list[Row]:
    """The time of a question is over; a request hears of it as a message."""
    by = target if "/" in target else f"default/{target}"
    text, reply_id = reply_envelope(by, "", await_id, found, now, failed=True)
    return [
        (sql.ANSWER_REQUEST, (reply_id, text, now, await_id), -1),
        *resolution(await_id, "timeout", orjson.dumps(found).decode(), now),
    ]


def question_expired(question_id: str, found: dict[str, Any], now: float) -> list[Row]:
    """No person answered in time."""
    told = canonical({"question_id": question_id}).decode()
    return [
        *resolution(question_id, "timeout", orjson.dumps(found).decode(), now),
        (questions.EXPIRED_EVENT, (now, told, question_id, now), -1),
    ]


def fence(turn: TurnRef, now: float) -> Row:
    """The first row of every unit of a turn: nothing is changed by who has lost the agent."""
    return sql.FENCE, (now, turn.agent, turn.epoch, turn.owner), 1


def _consumed(turn: TurnRef, after: Aftermath) -> list[Row]:
    if turn.queue is not None:
        after.queues.add((turn.queue, turn.agent))
    return consumed(turn)


def _go_on(turn: TurnRef, entry: Entry) -> Row:
    """The next turn's message, in the place of this turn's; like consuming it, last in its unit."""
    made, body = continued(turn, entry)
    return sql.CONTINUE, (made, body, turn.agent, turn.message_id), 1


def _record(turn: TurnRef, entry: Entry, now: float) -> Row:
    given = (turn.turn_id, entry.branch, entry.position, entry.kind, entry.body.decode())
    return sql.RECORD, (*given, None, None, None, now, None, None, entry.state or None), 1


def _open_or_grow(turn: TurnRef, outcome: str, grown: int, cpu_ns: int) -> Row:
    entries = turn.entries + grown
    if turn.recorded:
        given = (outcome, turn.attempts, turn.epoch, cpu_ns, entries, turn.turn_id, turn.entries)
        return sql.TURN_GROW, given, 1
    pinned = orjson.dumps(turn.pinned).decode()
    return sql.TURN_OPEN, (*_turn(turn, outcome), None, cpu_ns, entries, None, None, pinned), 1


def _end(
    turn: TurnRef, outcome: str, grown: int, cpu_ns: int, now: float, digest: str | None, found: str | None
) -> Row:
    entries = turn.entries + grown
    if turn.recorded:
        given = (
            outcome,
            turn.attempts + 1,
            turn.epoch,
            now,
            cpu_ns,
            entries,
            digest,
            found,
            turn.turn_id,
            turn.entries,
        )
        return sql.TURN_END, given, 1
    return sql.TURN_OPEN, (*_turn(turn, outcome), now, cpu_ns, entries, digest, found, None), 1


def _turn(turn: TurnRef, outcome: str) -> tuple[Any, ...]:
    return (
        turn.turn_id, turn.agent, turn.message_id, turn.trigger, turn.message,
        outcome, turn.attempts + (outcome in ENDED), turn.epoch, turn.digest, turn.started_at,
    )  # fmt: skip
