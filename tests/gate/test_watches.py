"""What wakes an agent without anybody asking it, at a real gate: times, events, batches of them and of channels."""

import contextlib
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.operations import watches
from controlplane.store import statements as sql
from controlplane.store.unit import Unit
from schemas.problem import Refusal
from tests.faults.points import Arming, supervised
from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio
HOUR = 3_600.0
SOURCE = """
from ray_runtime import Agent


class Watcher(Agent):
    state: dict

    def note(self, what):
        self.state.setdefault("got", []).append(what)

    async def on_message(self, turn, envelope):
        if envelope.data == "set":
            turn.timer("tick", cron="* * * * * *")
        elif envelope.data == "spoil":
            turn.send("nobody", 1)
            turn.publish("elsewhere/nowhere", 1)
        elif envelope.type == "steward.feedback":
            self.note([envelope.data["type"], envelope.data["data"].get("n")])
        else:
            self.note(envelope.data)

    async def on_timer(self, turn, timer):
        self.note([timer.type, timer.subject])

    async def on_batch(self, turn, envelopes):
        if len(envelopes) == 13:
            raise ValueError("unlucky")
        self.note([it.data["data"]["n"] if it.type == "steward.feedback" else it.data for it in envelopes])
"""
DEFAULTS = {"types": [], "kind": None, "name": None, "own": False}


def _feedback(debounce_s: float = 0.0, batch_max: int = 1, **wanted: Any) -> dict[str, Any]:
    return {"feedback": {**DEFAULTS, **wanted}, "debounce_s": debounce_s, "batch_max": batch_max}


def _cron(name: str, cron: str = "* * * * * *") -> dict[str, Any]:
    return {"cron": cron, "name": name, "zone": "UTC", "missed": "fire_once"}


async def _watch(gate: RunningGate, uid: str, *watched: dict[str, Any]) -> None:
    """As the reconciler sets up a generation."""
    unit = Unit()
    watches.take_away(unit, uid, watched)
    watches.set_up(unit, uid, "default", watched, time.time())
    assert await gate.store.write(unit)


async def _happens(gate: RunningGate, *numbers: int, type_: str = "work.done", name: str = "job", **about: Any) -> None:
    unit = Unit()
    for n in numbers:
        given = {"kind": "Channel", "namespace": "default", "name": name, "now": time.time(), **about}
        unit.event(type_, **given, data={"n": n})
    assert await gate.store.write(unit)


async def _publish(gate: RunningGate, *numbers: int) -> None:
    for n in numbers:
        body = {
            "specversion": "1.0", "id": f"p{n}", "source": "/operators/test", "type": "steward.message",
            "time": "2026-01-01T00:00:00Z", "data": n,
        }  # fmt: skip
        await gate.client.publish_channel("default", "news", f"p{n}", orjson.dumps(body))


def _got(rows: list[tuple[Any, ...]]) -> list[Any]:
    found: list[Any] = orjson.loads(rows[0][0] or "{}").get("got", []) if rows else []
    return found


async def _hears(gate: RunningGate, least: int, name: str = "watcher") -> list[Any]:
    query = f"SELECT state FROM agent WHERE name = '{name}'"
    return _got(await gate.until(query, lambda rows: len(_got(rows)) >= least))


async def _begun(gate: RunningGate, *names: str) -> list[str]:
    """Agents of these names, which have started."""
    code = await gate.code(SOURCE)
    uids = [await gate.agent(name, code, "Watcher", suspend_after_ms=0) for name in names]
    for uid in uids:
        await gate.until(f"SELECT 1 FROM turn WHERE agent = '{uid}'", bool)
    return uids


async def test_times_of_the_spec_wake_an_agent_and_leave_with_it(quick_url: str) -> None:
    """A watch and a turn's own timer of one name do not meet; a watch that is dropped leaves no timer and no firing."""
    async with running(quick_url) as gate:
        (uid,) = await _begun(gate, "watcher")
        await _watch(gate, uid, _cron("tick"), _cron("tock", "0 0 1 1 *"))
        await gate.send("watcher", "set", "s1")
        query = f"SELECT state FROM agent WHERE uid = '{uid}'"
        both = [["steward.watch", "tick"], ["steward.timer", "tick"]]
        await gate.until(query, lambda rows: all(it in _got(rows) for it in both))
        before = await gate.rows("SELECT name, version, due_at FROM timer WHERE name = 'watch:tock'")
        await _watch(gate, uid, _cron("tock", "0 0 1 1 *"))
        names = "SELECT name FROM timer ORDER BY name"
        assert await gate.rows(names) == [("tick",), ("watch:tock",)]
        assert await gate.rows("SELECT name, version, due_at FROM timer WHERE name = 'watch:tock'") == before
        await gate.client.control("stop", uid, {})
        unit = Unit()
        for name in ("tick", "tock", "gone"):
            body = f'{{"type":"steward.watch","subject":"{name}","specversion":"1.0"}}'
            unit.raw(sql.PUT, [uid, name, "timer", body, 1.0, "none"], 1)
        assert await gate.store.write(unit)
        await _watch(gate, uid, _cron("tock", "0 0 1 1 *"))
        assert await gate.rows("SELECT message_id FROM inbox WHERE body LIKE '%steward.watch%'") == [("tock",)]


async def test_events_wake_who_watches_them_each_once(
    quick_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, over kill -9 of the gate before, after and in between; what nobody watches writes nothing."""
    arming = Arming(tmp_path, monkeypatch)
    async with running(quick_url) as gate, supervised(gate):
        (uid,) = await _begun(gate, "watcher")
        await _watch(gate, uid, _feedback(types=["work.*"]))
        seen = 0
        for moment in ("before", "committed", "told"):
            arming.arm(f"gate.feedback.{moment}")
            with contextlib.suppress(Refusal):  # it is written, and the gate may die before it says so
                await _happens(gate, seen, seen + 1)
            await arming.fired()
            seen += 2
            assert await _hears(gate, seen) == [["work.done", n] for n in range(seen)]
        place = await gate.rows("SELECT position, told FROM feedback_watch")
        await _happens(gate, 7, type_="other.thing")
        await _happens(gate, 8, namespace="elsewhere")
        await _happens(gate, 9)
        assert (await _hears(gate, seen + 1))[seen:] == [["work.done", 9]]
        assert (await gate.rows("SELECT told FROM feedback_watch")) == [(place[0][1] + 1,)]


async def test_an_agent_does_not_wake_itself(quick_url: str) -> None:
    """Neither by events about itself nor by those of its turns about others, unless it says so; nor by summaries."""
    async with running(quick_url) as gate:
        others, own = await _begun(gate, "watcher", "narcissus")
        await _watch(gate, others, _feedback())
        await _watch(gate, own, _feedback(own=True, types=["message.*"]))
        for name in ("watcher", "narcissus"):
            await gate.send(name, "spoil", f"s-{name}")
        heard = await _hears(gate, 4, "narcissus")
        assert {it[0] for it in heard} == {"message.dead_lettered"}
        await gate.until("SELECT 1 FROM event WHERE type = 'turns.summary'", bool)
        await _happens(gate, 1)
        assert await _hears(gate, 3) == [*[["message.dead_lettered", None]] * 2, ["work.done", 1]]


async def test_what_comes_within_the_window_is_delivered_together(quick_url: str) -> None:
    """Events and envelopes: nothing while it is open, then one turn for each batch, which `batch_max` bounds."""

    def watched(debounce_s: float, batch_max: int) -> tuple[dict[str, Any], dict[str, Any]]:
        channel = {"channel": "news", "start": "now", "debounce_s": debounce_s, "batch_max": batch_max}
        return channel, _feedback(debounce_s, batch_max, types=["work.done"])

    async with running(quick_url) as gate:
        uid, witness = await _begun(gate, "watcher", "witness")
        await gate.channel("news")
        await _watch(gate, uid, *watched(HOUR, 3))
        await _watch(gate, witness, *watched(0.0, 1))
        await _publish(gate, *range(5))
        await _happens(gate, *range(10, 15))
        await _hears(gate, 10, "witness")
        assert await gate.rows(f"SELECT message_id FROM inbox WHERE agent = '{uid}'") == []
        await _watch(gate, uid, *watched(0.01, 3))
        await gate.client.control("deliver", "channel_news", {})
        got = await _hears(gate, 4)
        assert [it for it in got if it[0] < 10] == [[0, 1, 2], [3, 4]]
        assert [it for it in got if it[0] >= 10] == [[10, 11, 12], [13, 14]]
        turns = await gate.rows(f"SELECT message FROM turn WHERE agent = '{uid}' AND \"trigger\" = 'batch'")
        assert len(turns) == 4
        position = await gate.rows("SELECT s.position - c.next_position FROM subscription s, channel c")
        assert position == [(-1,), (-1,)]


async def test_a_window_without_batches_is_one_wake(quick_url: str) -> None:
    """Each envelope has a turn of its own, and the agent is acquired once for all of them."""
    async with running(quick_url) as gate:
        (uid,) = await _begun(gate, "watcher")
        await gate.until(f"SELECT owner FROM agent WHERE uid = '{uid}'", lambda rows: rows[0][0] is None)
        (before,) = (await gate.rows(f"SELECT epoch FROM agent WHERE uid = '{uid}'"))[0]
        await gate.channel("news")
        watched = {"channel": "news", "start": "now", "debounce_s": HOUR, "batch_max": 1}
        await _watch(gate, uid, watched)
        await _publish(gate, *range(6))
        await _watch(gate, uid, {**watched, "debounce_s": 0.1})
        await gate.client.control("deliver", "channel_news", {})
        assert await _hears(gate, 6) == list(range(6))
        assert await gate.rows(f"SELECT epoch FROM agent WHERE uid = '{uid}'") == [(before + 1,)]
        await _publish(gate, 6)
        assert await _hears(gate, 7) == list(range(7))


async def test_a_batch_that_fails_is_given_up_as_a_whole(quick_url: str) -> None:
    """Tried again like any message, then one dead letter that holds all of it; the next batch is handled."""
    async with running(quick_url, turn_attempts_max=2) as gate:
        (uid,) = await _begun(gate, "watcher")
        await gate.channel("news")
        await _publish(gate, *range(13))
        await _watch(gate, uid, {"channel": "news", "start": "beginning", "debounce_s": 0.0, "batch_max": 100})
        await gate.client.control("deliver", "channel_news", {})
        letters = await gate.until("SELECT body FROM dead_letter", bool)
        assert [it["data"] for it in orjson.loads(letters[0][0])["data"]] == list(range(13))
        await _publish(gate, 13)
        assert await _hears(gate, 1) == [[13]]


async def test_a_full_inbox_holds_events_back(quick_url: str) -> None:
    """The place stays where it is, and goes on when there is room; nothing is lost."""
    async with running(quick_url, inbox_messages_max=3) as gate:
        (uid,) = await _begun(gate, "watcher")
        await _watch(gate, uid, _feedback(types=["work.done"], batch_max=2))
        await gate.client.control("stop", uid, {})
        await _happens(gate, *range(12))
        await gate.until("SELECT COUNT(*) FROM inbox", lambda rows: rows[0][0] == 3)
        await gate.client.control("wake", uid, {})
        assert await _hears(gate, 6) == [[n, n + 1] for n in range(0, 12, 2)]


async def test_an_agent_that_goes_leaves_nothing_of_its_watches(quick_url: str) -> None:
    """No timer, no place in the log, no subscription, no message."""
    async with running(quick_url) as gate:
        (uid,) = await _begun(gate, "watcher")
        await gate.channel("news")
        channel = {"channel": "news", "start": "now", "debounce_s": 60.0, "batch_max": 5}
        await _watch(gate, uid, channel, _cron("tick"), _feedback(60.0, 5))
        await _publish(gate, 1)
        await _happens(gate, 1)
        await gate.client.control("remove", uid, {})
        for table in ("timer", "feedback_watch", "subscription", "inbox"):
            assert await gate.rows(f"SELECT 1 FROM {table}") == [], table
