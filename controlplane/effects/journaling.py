"""From frames to units: what each step of a turn writes, all of it or nothing.

Pure. Every unit of a turn starts with a fence, so that a host which lost its agent changes nothing,
and names the journal position that it expects, so that a segment commits once. State and the
consumption of the message commit only at the end; external effects are written ahead.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from controlplane.effects.entries import (
    Aftermath,
    Made,
    Row,
    TurnRef,
    at_time,
    reply_envelope,
    rows_of,
)
from controlplane.effects.gathers import counted
from controlplane.store import external
from controlplane.store import statements as sql
from schemas.base import canonical, short_id
from schemas.wire import Ask, Commit, Entry

ENDED = ("committed", "failed")


def park(turn: TurnRef, entries: Sequence[Entry], cpu_ns: int, now: float, generations: Mapping[str, int]) -> Made:
    """A segment that ends in a durable await."""
    rows, after = rows_of(turn, entries, now, generations)
    head = [_fence(turn, now), _open_or_grow(turn, "parked", len(entries), cpu_ns)]
    return [*head, *(_record(turn, entry, now) for entry in entries), *rows], after


def commit(turn: TurnRef, frame: Commit, now: float, generations: Mapping[str, int]) -> Made:
    """The end of a turn: state, consumption, what is buffered, the answer."""
    rows, after = rows_of(turn, frame.entries, now, generations)
    state = (frame.state.decode(), frame.state_digest, now, turn.agent, turn.epoch, turn.owner, turn.version)
    head: list[Row] = [
        (sql.COMMIT, state, 1),
        _end(turn, "committed", len(frame.entries), frame.cpu_ns, now, frame.state_digest, None),
    ]
    answer = answered(turn, frame.reply, now, after)
    return [*head, *(_record(turn, entry, now) for entry in frame.entries), *rows, *answer, _consume(turn)], after


def failed_again(turn: TurnRef, cpu_ns: int, now: float) -> list[Row]:
    """An attempt that failed and will be repeated; what was journaled stays."""
    rows: list[Row] = [_fence(turn, now), (sql.ATTEMPT, (turn.agent, turn.message_id), 1)]
    if turn.recorded:
        grown = ("running", turn.attempts + 1, turn.epoch, cpu_ns, turn.entries, turn.turn_id, turn.entries)
        rows.append((sql.TURN_GROW, grown, 1))
    return rows


def failed_for_good(turn: TurnRef, found: dict[str, Any], cpu_ns: int, now: float, *, owned: bool = True) -> Made:
    """The message goes to the dead letters, whoever asked hears of it, and the agent goes on."""
    after = Aftermath()
    text = orjson.dumps(found).decode()
    letter = (
        turn.agent, turn.namespace, turn.name, turn.message_id, turn.message,
        found["reason"], found["detail"], turn.turn_id, now,
    )  # fmt: skip
    data = {"reason": found["reason"], "detail": found["detail"], "message_id": turn.message_id}
    rows: list[Row] = [
        _fence(turn, now) if owned else (sql.FENCE_SUSPENDED, (now, turn.agent, turn.epoch), 1),
        _end(turn, "failed", 0, cpu_ns, now, None, text),
        (sql.CANCEL_AWAITS, (now, turn.turn_id), -1),
        (sql.DEAD_LETTER, letter, 1),
        event("turn.failed", turn, data, now),
        event("message.dead_lettered", turn, {**data, "trigger": turn.trigger}, now),
    ]
    return [*rows, *refused(turn, found, now, after), _consume(turn)], after


def intent(turn: TurnRef, ask: Ask, verdict: str, send_by: float, now: float, generations: Mapping[str, int]) -> Made:
    """An external effect, written ahead together with what was buffered before it."""
    rows, after = rows_of(turn, ask.entries, now, generations)
    head = [_fence(turn, now), _open_or_grow(turn, "running", len(ask.entries) + 1, 0)]
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
    )
    return [*head, *(_record(turn, entry, now) for entry in ask.entries), *rows, (sql.RECORD, record, 1)], after


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


def intent_again(turn: TurnRef, ask: Ask, send_by: float, retry_of: str | None, now: float) -> list[Row]:
    """An effect that is sent once more, written ahead; an operator's `retry` is good for one time."""
    rows: list[Row] = [
        _fence(turn, now),
        (external.RESEND, (send_by, turn.turn_id, ask.branch, ask.position), 1),
    ]
    return rows if retry_of is None else [*rows, (external.RETRIED, (retry_of,), 1)]


def hold(turn: TurnRef, ask: Ask, why: str, now: float, until: float) -> list[Row]:
    """An effect in doubt: the turn parks, and everything that is known is told."""
    over = f" over {ask.connection}" if ask.connection else ""
    await_id = short_id("await", turn.turn_id, ask.branch, ask.position, turn.epoch, now)
    target = f"turns.settle of {ask.effect}{over}"
    at = (turn.turn_id, ask.branch, ask.position)
    data = {
        "effect": ask.effect, "connection": ask.connection or None, "branch": ask.branch, "position": ask.position,
        "idempotency_key": f"{turn.turn_id}:{ask.branch}:{ask.position}", "why": why, "until": at_time(until),
    }  # fmt: skip
    return [
        _fence(turn, now),
        _open_or_grow(turn, "parked", 0, 0),
        (external.HOLD, (await_id, turn.agent, *at, target, now, until), 1),
        event("effect.in_doubt", turn, data, now),
    ]


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
    after.answered.append(turn.replyto)
    text, reply_id = reply_envelope(turn.address, "", turn.replyto, orjson.Fragment(reply), now)
    return [
        _late(turn, now),
        (sql.ANSWER_REQUEST, (reply_id, text, now, turn.replyto), -1),
        (sql.RESOLVE_OPERATOR, ("answered", reply.decode(), now, turn.replyto), -1),
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
    return [_late(turn, now), *refusal(turn.address, turn.replyto, found, now)]


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


def event(kind: str, turn: TurnRef, data: dict[str, Any], now: float, principal: str | None = None) -> Row:
    """A feedback event about the turn's agent."""
    text = canonical(data).decode()
    return sql.EVENT, (kind, now, "Agent", turn.namespace, turn.name, principal, turn.turn_id or None, text), 1


def agent_event(kind: str, namespace: str, name: str, principal: str | None, now: float) -> Row:
    """A feedback event about what an operator did to an agent."""
    return sql.EVENT, (kind, now, "Agent", namespace, name, principal, None, "{}"), 1


def _fence(turn: TurnRef, now: float) -> Row:
    return sql.FENCE, (now, turn.agent, turn.epoch, turn.owner), 1


def _consume(turn: TurnRef) -> Row:
    """The message is done. Last in its unit: before it, whoever sends it again finds it there, after it, the turn."""
    return sql.CONSUME, (turn.agent, turn.message_id), 1


def _record(turn: TurnRef, entry: Entry, now: float) -> Row:
    given = (turn.turn_id, entry.branch, entry.position, entry.kind, entry.body.decode())
    return sql.RECORD, (*given, None, None, None, now, None, None), 1


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
