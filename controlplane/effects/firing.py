"""A timer that is due: its messages, and its next time.

Pure. The messages and the step to the next time are one unit, fenced by the timer's version and by the
time that was due, so that each scheduled time is passed once, whoever dies in between. Ids are made of
the timer and the scheduled time. What was missed (nobody looked in time, or the message of before still
waits) goes by the timer's policy; how many times had no message of their own is told in the next one.
"""

from typing import NamedTuple

import orjson

from controlplane.effects.entries import timer_mark
from controlplane.effects.turnref import Row, at_time
from controlplane.store import statements as sql
from controlplane.store.schedules import MADE_UP_MAX, Schedule, passed
from schemas.base import canonical, short_id, turn_of
from schemas.question import FOREVER

ON_TIME_S = 10.0  # `skip`: a time this far back was missed; closer, it is only late
WHY_CHARS_MAX = 500


class Due(NamedTuple):
    """A timer's row, and its agent's address."""

    agent: str
    name: str
    version: int
    due_at: float
    every_s: float | None
    data: str
    cron: str | None
    zone: str | None
    missed: str
    behind: int
    namespace: str
    of: str


def fired(timer: Due, waiting: int, now: float) -> tuple[list[Row], float | None]:
    """The unit of a firing, and when the timer is due next; `waiting` messages of it were not handled yet."""
    schedule = Schedule(timer.every_s, timer.cron, timer.zone, timer.missed)
    times, many, next_at = passed(schedule, timer.due_at, now)
    told = _told(schedule, times, waiting, now)
    behind = timer.behind + many - len(told)
    rows = [_message(timer, at, 0 if number else behind, now) for number, at in enumerate(told)]
    at_its_time = (timer.agent, timer.name, timer.version, timer.due_at)
    if next_at is None:
        return [(sql.TIMER_END, at_its_time, 1), *rows], None
    left = 0 if told else behind
    return [(sql.TIMER_ADVANCE, (next_at, left, len(told), *at_its_time), 1), *rows], next_at


def set_aside(timer: Due, why: str, now: float) -> list[Row]:
    """The unit of a timer that can not fire, which is told once: it stays, and is due no more until it is set anew."""
    at_its_time = (timer.agent, timer.name, timer.version, timer.due_at)
    about = canonical({"timer": timer.name, "why": why[:WHY_CHARS_MAX]}).decode()
    return [
        (sql.TIMER_ADVANCE, (FOREVER, timer.behind, 0, *at_its_time), 1),
        (sql.EVENT, ("timer.broken", now, "Agent", timer.namespace, timer.of, None, None, about), 1),
    ]


def _told(schedule: Schedule, times: tuple[float, ...], waiting: int, now: float) -> tuple[float, ...]:
    """Which of the times that are over get a message."""
    if not schedule.repeats:
        return times
    if schedule.missed == "all":
        return times[-max(0, MADE_UP_MAX - waiting) :] if waiting < MADE_UP_MAX else ()
    if waiting or (schedule.missed == "skip" and now - times[-1] > ON_TIME_S):
        return ()
    return times[-1:]


def _message(timer: Due, at: float, missed: int, now: float) -> Row:
    message_id = short_id("msg", "timer", timer.agent, timer.name, timer.version, at, near=at)
    body = {
        **timer_mark(timer.name),
        "specversion": "1.0",
        "id": message_id,
        "source": f"/{timer.namespace}/agents/{timer.of}",
        "time": at_time(now),
        "datacontenttype": "application/json",
        "data": orjson.Fragment(timer.data),
        "scheduledat": at_time(at),
        "missed": missed,
    }
    turn_id = turn_of(timer.agent, message_id)
    return sql.PUT, (timer.agent, message_id, "timer", orjson.dumps(body).decode(), now, turn_id), -1
