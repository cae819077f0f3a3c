"""What an agent's spec watches, as records: subscriptions, timers, places in the feedback log. Pure.

Setting up may be repeated: what is there already stays where it is, unless what it goes by has changed.
Timers and places of watches belong to the spec alone, so a new generation takes away whatever it does
not name; a subscription may also be somebody's who joined, and goes with the commit that drops its watch.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete
from sqlmodel import col

from controlplane.mesh.membership import joined
from controlplane.store.schedules import Schedule, first_at
from controlplane.store.tables import TimerRow
from controlplane.store.unit import Unit
from controlplane.store.waking_tables import FeedbackWatchRow
from schemas.base import canonical, short_id
from schemas.watch import TIMER_PREFIX

Watches = Iterable[Mapping[str, Any]]
SUBSCRIBE = {
    "now": """INSERT INTO subscription (channel, agent, position, since, debounce_s, batch_max)
SELECT c.uid, a.uid, c.next_position - 1, ?, ?, ? FROM channel c, agent a
WHERE c.namespace = ? AND c.name = ? AND a.uid = ? ON CONFLICT (channel, agent) DO UPDATE SET
debounce_s = excluded.debounce_s, batch_max = excluded.batch_max""",
    "beginning": """INSERT INTO subscription (channel, agent, position, since, debounce_s, batch_max)
SELECT c.uid, a.uid, COALESCE((SELECT MIN(position) FROM channel_message m WHERE m.channel = c.uid), c.next_position)
- 1, ?, ?, ? FROM channel c, agent a
WHERE c.namespace = ? AND c.name = ? AND a.uid = ? ON CONFLICT (channel, agent) DO UPDATE SET
debounce_s = excluded.debounce_s, batch_max = excluded.batch_max""",
}
SET_TIMER = """INSERT INTO timer (agent, name, version, fired, due_at, data, cron, zone, missed, behind)
SELECT uid, ?, 1, 0, ?, 'null', ?, ?, ?, 0 FROM agent WHERE uid = ? ON CONFLICT (agent, name) DO UPDATE SET
version = timer.version + 1, due_at = excluded.due_at, cron = excluded.cron, zone = excluded.zone,
missed = excluded.missed, behind = 0
WHERE timer.cron <> excluded.cron OR timer.zone <> excluded.zone OR timer.missed <> excluded.missed"""
STAND = """INSERT INTO feedback_watch (agent, watch, position, told, since, filter, debounce_s, batch_max)
SELECT uid, ?, COALESCE((SELECT MAX(e.cursor) FROM event e WHERE e.namespace = agent.namespace), 0), 0, ?, ?, ?, ?
FROM agent WHERE uid = ? ON CONFLICT (agent, watch) DO UPDATE SET
debounce_s = excluded.debounce_s, batch_max = excluded.batch_max"""
# Firings of timers that are gone, but for one that an open turn handles.
STRAY_FIRINGS = """DELETE FROM inbox WHERE agent = ? AND "trigger" = 'timer'
AND SUBSTR(body, 1, 24) = '{"type":"steward.watch",'
AND NOT EXISTS (SELECT 1 FROM timer t WHERE t.agent = inbox.agent
AND SUBSTR(inbox.body, 1, LENGTH(t.name) + 31) = '{"type":"steward.watch","subject":"' || SUBSTR(t.name, 7) || '",')
AND NOT EXISTS (SELECT 1 FROM turn o WHERE o.agent = inbox.agent AND o.message_id = inbox.message_id
AND o.finished_at IS NULL)"""


def channels_of(watches: Watches) -> list[Mapping[str, Any]]:
    """The entries that watch a channel."""
    return [it for it in watches if "channel" in it]


def set_up(unit: Unit, uid: str, namespace: str, watches: Watches, now: float) -> None:
    """All that is watched: of channels, those that are there."""
    for it in watches:
        if "cron" in it:
            _timer(unit, uid, it, now)
        elif "feedback" in it:
            about = (canonical(it["feedback"]).decode(), it["debounce_s"], it["batch_max"])
            unit.raw(STAND, [_place(it), now, *about, uid])
        else:
            subscribe(unit, uid, namespace, it, now)


def subscribe(unit: Unit, uid: str, namespace: str, it: Mapping[str, Any], now: float) -> None:
    """A subscription, if channel and agent are there; a membership that is there stays where it is."""
    how = (it.get("debounce_s", 0.0), it.get("batch_max", 1))
    unit.raw(SUBSCRIBE[it["start"]], [now, *how, namespace, it["channel"], uid])
    unit.rows(joined(uid, namespace, it["channel"], now))


def take_away(unit: Unit, uid: str, watches: Watches) -> None:
    """Timers and places in the log that a spec does not name."""
    listed = list(watches)
    timers = [_timer_name(it) for it in listed if "cron" in it]
    places = [_place(it) for it in listed if "feedback" in it]
    of_watches = col(TimerRow.name).startswith(TIMER_PREFIX, autoescape=True)
    unit.run(delete(TimerRow).where(col(TimerRow.agent) == uid, of_watches, col(TimerRow.name).not_in(timers)))
    rows = delete(FeedbackWatchRow).where(col(FeedbackWatchRow.agent) == uid)
    unit.run(rows.where(col(FeedbackWatchRow.watch).not_in(places)))
    unit.raw(STRAY_FIRINGS, [uid])


def _timer(unit: Unit, uid: str, it: Mapping[str, Any], now: float) -> None:
    due_at = first_at(Schedule(cron=it["cron"], zone=it["zone"]), None, now)
    if due_at is not None:
        unit.raw(SET_TIMER, [_timer_name(it), due_at, it["cron"], it["zone"], it["missed"], uid])


def _timer_name(it: Mapping[str, Any]) -> str:
    return TIMER_PREFIX + str(it["name"])


def _place(it: Mapping[str, Any]) -> str:
    """The name of a place in the log: of what is watched, not of how it is delivered."""
    return short_id("watch", it["feedback"])
