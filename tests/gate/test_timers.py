"""Timers of a real gate: by cron expression, over kill -9, stops and moved clocks; each scheduled time once."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.store.schedules import MADE_UP_MAX
from controlplane.store.unit import Unit
from tests.faults.points import Arming, supervised
from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio
HOUR = 3_600.0
SOURCE = """
from ray_runtime import Agent


class Twins(Agent):
    state: dict

    async def on_message(self, turn, envelope):
        match envelope.data:
            case "timer":
                turn.timer("a\\0b", after_s=1)
            case "publish":
                turn.publish("news", 1, key="a\\0b")
            case "raise":
                raise LookupError("a\\0b")
        for name in ("Poll", "poll", "po%l", "p_ll"):
            turn.timer(name, after_s=0)

    async def on_timer(self, turn, timer):
        self.state.setdefault("told", []).append(timer.subject)
        turn.timer(timer.subject, after_s=3600)


class Clock(Agent):
    state: dict

    async def on_message(self, turn, envelope):
        for timer in envelope.data:
            turn.timer(**timer)

    async def on_timer(self, turn, timer):
        told = [timer.scheduledat.timestamp(), timer.missed]
        self.state.setdefault(timer.subject, []).append(told)
"""


class Moved:
    """A gate's clock, set from the test."""

    def __init__(self, folder: Path) -> None:
        self.path, self._new = folder / "moved", folder / "new"
        self.to(0.0)

    def to(self, seconds: float) -> None:
        self._new.write_text(str(seconds))
        self._new.replace(self.path)


async def _told(gate: RunningGate, name: str, timer: str, least: int) -> list[list[float]]:
    """What the agent heard of a timer: scheduled for, and how many were missed before."""

    def heard(rows: list[tuple[Any, ...]]) -> list[list[float]]:
        found: list[list[float]] = orjson.loads(rows[0][0] or "{}").get(timer, []) if rows else []
        return found

    query = f"SELECT state FROM agent WHERE name = '{name}'"
    return heard(await gate.until(query, lambda rows: len(heard(rows)) >= least))


def _covers(told: list[list[float]], period: float) -> bool:
    """Whether each scheduled time from the first to the last was told or counted, once."""
    pairs = pairwise(told)
    return all(abs(after[0] - before[0] - (after[1] + 1) * period) < 1e-3 for before, after in pairs)


async def test_no_scheduled_time_is_lost_or_doubled_by_deaths_of_the_gate(
    quick_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 between due and fired, after the commit and after it was told: every time is told or counted, once."""
    arming = Arming(tmp_path, monkeypatch)
    async with running(quick_url) as gate, supervised(gate):
        code = await gate.code(SOURCE)
        await gate.agent("clock", code, "Clock", suspend_after_ms=0)
        timers = [{"name": "each", "cron": "* * * * * *", "missed": "all"}, {"name": "some", "every_s": 0.2}]
        await gate.send("clock", timers, "set")
        await _told(gate, "clock", "some", 1)
        for moment in ("before", "committed", "told"):
            arming.arm(f"gate.timer.{moment}")
            await arming.fired()
            seen = len(await _told(gate, "clock", "some", 0))
            await _told(gate, "clock", "some", seen + 2)
        each, some = await _told(gate, "clock", "each", 3), await _told(gate, "clock", "some", 3)
        assert _covers(each, 1.0)
        assert _covers(some, 0.2)
        assert all(at == int(at) and missed == 0 for at, missed in each)
        doubled = await gate.rows("SELECT message_id FROM turn GROUP BY agent, message_id HAVING COUNT(*) > 1")
        assert doubled == []


async def test_what_was_missed_goes_by_the_policy(database_url: str, tmp_path: Path) -> None:
    """The gate is away for three hours and a half: once for all, not at all, or each of them, and none twice."""
    moved = Moved(tmp_path)
    async with running(database_url, clock_moved_by=str(moved.path)) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("clock", code, "Clock", suspend_after_ms=0)
        hourly = [{"name": it, "cron": "0 * * * *", "missed": it} for it in ("fire_once", "skip", "all")]
        await gate.send("clock", hourly, "set")
        rows = await gate.until("SELECT name, due_at FROM timer", lambda rows: len(rows) == 3)
        assert len({due_at for _, due_at in rows}) == 1
        due_at = rows[0][1]
        gate.kill()
        moved.to(due_at - time.time() + 3.5 * HOUR)
        gate.start()
        assert await _told(gate, "clock", "all", 4) == [[due_at + n * HOUR, 0] for n in range(4)]
        assert await _told(gate, "clock", "fire_once", 1) == [[due_at + 3 * HOUR, 3]]
        assert await _told(gate, "clock", "skip", 0) == []
        assert {row[0] for row in await gate.rows("SELECT due_at FROM timer")} == {due_at + 4 * HOUR}
        assert await gate.rows("SELECT behind FROM timer WHERE name = 'skip'") == [(4,)]


async def test_a_clock_that_goes_back_fires_nothing_twice(quick_url: str, tmp_path: Path) -> None:
    """A quarter of an hour forwards and back again: each second is told once, or counted."""
    moved = Moved(tmp_path)
    async with running(quick_url, clock_moved_by=str(moved.path)) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("clock", code, "Clock")
        await gate.send("clock", [{"name": "each", "cron": "* * * * * *"}], "set")
        await _told(gate, "clock", "each", 1)
        moved.to(HOUR / 4)
        before = await _told(gate, "clock", "each", 2)
        moved.to(0.0)
        told = await _told(gate, "clock", "each", len(before) + 1)
        assert _covers(told, 1.0)
        assert sum(missed for _, missed in told) == told[-1][0] - told[0][0] - len(told) + 1


async def test_what_a_stopped_agent_missed_is_made_up_for_within_the_bound(quick_url: str) -> None:
    """With `all`, the newest hundred are told one by one, and what is beyond them is counted in the first."""
    async with running(quick_url) as gate:
        code = await gate.code(SOURCE)
        uid = await gate.agent("clock", code, "Clock")
        fast = {"name": "fast", "after_s": HOUR, "every_s": 0.05, "missed": "all"}
        await gate.send("clock", [fast], "set")
        await gate.until("SELECT 1 FROM timer", bool)
        await gate.client.control("stop", uid, {})
        back = f"UPDATE timer SET due_at = due_at - {HOUR + 60}"
        assert await gate.store.write(Unit().raw(back, [], 1))
        await gate.client.control("wake", uid, {})
        told = await _told(gate, "clock", "fast", MADE_UP_MAX + 1)
        assert _covers(told, 0.05)
        assert told[0][1] > 1_000
        assert {missed for _, missed in told[1:MADE_UP_MAX]} == {0}


async def test_timers_whose_names_look_alike_keep_their_firings(quick_url: str) -> None:
    """Whoever sets one anew discards its own firings, and no other's."""
    async with running(quick_url) as gate:
        await gate.agent("twins", await gate.code(SOURCE), "Twins")
        await gate.send("twins", 1, "m1")
        rows = await gate.until("SELECT state FROM agent", lambda rows: str(rows).lower().count('"p') >= 4)
        assert sorted(orjson.loads(rows[0][0])["told"]) == ["Poll", "p_ll", "po%l", "poll"]


async def test_a_timer_that_can_not_fire_keeps_no_gate_from_its_start(quick_url: str) -> None:
    """What stands in its row is told, and the row set aside; others fire, before and after a restart."""
    async with running(quick_url) as gate:
        uid = await gate.agent("clock", await gate.code(SOURCE), "Clock", suspend_after_ms=0)
        broken = (
            "INSERT INTO timer (agent, name, version, fired, due_at, every_s, data, missed, behind)"
            " VALUES (?, 'broken', 1, 0, 1, 0, '1', 'fire_once', 0)"
        )
        assert await gate.store.write(Unit().raw(broken, [uid], 1))
        await gate.send("clock", [{"name": "fine", "every_s": 0.1}], "set")
        await _told(gate, "clock", "fine", 2)
        about = await gate.until("SELECT data FROM event WHERE type = 'timer.broken'", bool)
        assert orjson.loads(about[0][0])["timer"] == "broken"
        gate.kill()
        gate.start()
        await _told(gate, "clock", "fine", len(await _told(gate, "clock", "fine", 2)) + 1)
        assert len(await gate.rows("SELECT 1 FROM event WHERE type = 'timer.broken'")) == 1


async def test_text_that_a_database_can_not_keep_is_refused_or_told(postgresql_url: str) -> None:
    """A name or a key with NUL is the handler's fault, at the call; what it raises with NUL is told for what it is."""
    async with running(postgresql_url, turn_attempts_max=1) as gate:
        await gate.agent("twins", await gate.code(SOURCE), "Twins")
        reasons = [(await gate.ask("twins", data, data))["reason"] for data in ("timer", "publish", "raise")]
        assert reasons == ["INVALID_VALUE", "INVALID_VALUE", "HANDLER_ERROR"]
        letters = await gate.rows("SELECT detail FROM dead_letter WHERE reason = 'HANDLER_ERROR'")
        assert "a\\x00b" in letters[0][0]
