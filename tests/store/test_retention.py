"""What goes, what stays, and that it goes a little at a time."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import insert
from sqlmodel import SQLModel, select

from controlplane.store import retention
from controlplane.store.archive import Archive
from controlplane.store.retention import Retention
from controlplane.store.store import Store
from controlplane.store.tables import (
    AgentRow,
    AwaitRow,
    ChannelMessageRow,
    ChannelRow,
    DeadLetterRow,
    EventRow,
    HostRow,
    JournalRow,
    PlanRow,
    SecretValueRow,
    SubscriptionRow,
    TurnRow,
)
from controlplane.store.unit import Unit
from schemas.problem import Refusal

pytestmark = pytest.mark.anyio
DAY = 86_400.0
NOW = 100 * DAY


async def put(store: Store, table: type[SQLModel], *rows: dict[str, Any]) -> None:
    unit = Unit()
    for row in rows:
        unit.run(insert(table).values(**row), 1)
    assert await store.write(unit)


async def left(store: Store, table: type[SQLModel], field: str) -> set[Any]:
    return set(await store.read(lambda session: [getattr(row, field) for row in session.exec(select(table)).all()]))


def turn(turn_id: str, agent: str, finished_at: float | None, trigger: str = "message") -> dict[str, Any]:
    common = {"message_id": turn_id, "message": "{}", "outcome": "committed", "digest": "d", "started_at": 1.0}
    return {"turn_id": turn_id, "agent": agent, "finished_at": finished_at, "trigger": trigger} | common


def sweeper(store: Store) -> Retention:
    return Retention(store, turn_retention_s=7 * DAY, event_retention_s=30 * DAY)


async def test_uncommitted_plans_and_unbound_values_die(store: Store) -> None:
    """A plan goes a week after it expired, its values at once; a committed one stays, and so do bound values."""
    plan = {"principal": "p", "namespace": "d", "body": "{}", "decisions": "{}", "created_at": 1.0}
    await put(
        store,
        PlanRow,
        plan | {"plan_id": "old", "expires_at": NOW - 604_801},
        plan | {"plan_id": "expired", "expires_at": NOW - 1},
        plan | {"plan_id": "committed", "expires_at": NOW - 1, "change_id": "chg_1"},
        plan | {"plan_id": "open", "expires_at": NOW + 1},
    )
    value = {"namespace": "d", "nonce": b"n", "ciphertext": b"c", "created_at": 1.0}
    await put(
        store,
        SecretValueRow,
        value | {"ref": "old", "expires_at": NOW - 1},
        value | {"ref": "open", "expires_at": NOW + 1},
        value | {"ref": "bound", "bound_to": "uid", "expires_at": None},
        value | {"ref": "replaced", "bound_to": "uid", "expires_at": NOW - 1},
    )
    await sweeper(store).sweep(NOW)
    assert await left(store, PlanRow, "plan_id") == {"committed", "expired", "open"}
    assert await left(store, SecretValueRow, "ref") == {"open", "bound"}


async def test_old_turns_go_with_all_that_is_theirs(store: Store) -> None:
    """Finished and old: gone with journal and awaits. Open ones, young ones, and a living agent's start stay."""
    await put(store, AgentRow, {"uid": "alive", "namespace": "d", "name": "n", "changed_at": 1.0})
    old, young = NOW - 8 * DAY, NOW - DAY
    await put(
        store,
        TurnRow,
        turn("old", "alive", old),
        turn("young", "alive", young),
        turn("open", "alive", None),
        turn("start", "alive", old, "start"),
        turn("start-of-gone", "gone", old, "start"),
    )
    entry = {"branch": "0", "position": 0, "kind": "send", "body": "{}", "recorded_at": 1.0}
    await put(store, JournalRow, *[entry | {"turn_id": it} for it in ("old", "young", "start", "start-of-gone")])
    waits = {"kind": "ask", "target": "x", "since": 1.0, "until": 2.0, "resolved_at": 2.0}
    await put(
        store,
        AwaitRow,
        waits | {"await_id": "a-old", "turn_id": "old"},
        waits | {"await_id": "a-open", "turn_id": "open"},
        waits | {"await_id": "a-operator"},
        waits | {"await_id": "a-operator-open", "resolved_at": None},
    )
    sweep = sweeper(store)
    await sweep.sweep(NOW)
    assert await left(store, TurnRow, "turn_id") == {"young", "open", "start"}
    assert await left(store, JournalRow, "turn_id") == {"young", "start"}
    assert await left(store, AwaitRow, "await_id") == {"a-open", "a-operator-open"}


async def test_a_turn_stays_until_its_awaits_are_over(store: Store) -> None:
    """One that asked and went on stays, however old, until the answer is there and as old as a turn may be."""
    old = NOW - 30 * DAY
    await put(store, TurnRow, *[turn(it, "alive", old) for it in ("asks", "holds", "heard", "over")])
    entry = {"branch": "0", "position": 0, "kind": "request", "body": "{}", "recorded_at": 1.0}
    await put(store, JournalRow, *[entry | {"turn_id": it} for it in ("asks", "holds", "heard", "over")])
    waits = {"kind": "request", "target": "x", "since": old, "until": NOW + DAY, "agent": "alive"}
    await put(
        store,
        AwaitRow,
        waits | {"await_id": "asked", "turn_id": "asks"},
        waits | {"await_id": "asked-before", "turn_id": "asks", "resolved_at": old},
        waits | {"await_id": "held", "turn_id": "holds", "kind": "effect", "agent": None},
        waits | {"await_id": "answered", "turn_id": "heard", "resolved_at": NOW - 60},
        waits | {"await_id": "ended", "turn_id": "over", "resolved_at": NOW - 8 * DAY},
    )
    sweep = sweeper(store)
    await sweep.sweep(NOW)
    assert await left(store, TurnRow, "turn_id") == {"asks", "holds", "heard"}
    assert await left(store, JournalRow, "turn_id") == {"asks", "holds", "heard"}
    assert await left(store, AwaitRow, "await_id") == {"asked", "asked-before", "held", "answered"}
    await store.write(Unit().raw("UPDATE awaiting SET resolved_at = ? WHERE await_id <> 'held'", [NOW + DAY]))
    await sweep.sweep(NOW + 7 * DAY)
    assert await left(store, TurnRow, "turn_id") == {"asks", "holds", "heard"}, "the answer came later than the turn"
    await sweep.sweep(NOW + 9 * DAY)
    assert await left(store, AwaitRow, "await_id") == {"held"}, "what was needed once is met again"
    assert await left(store, TurnRow, "turn_id") == {"holds"}


async def test_a_run_is_bounded_and_the_next_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run takes at most so many, and what stays does not stand in the way of what follows."""
    monkeypatch.setattr(retention, "ROWS_MAX", 10)
    monkeypatch.setattr(retention, "ROUNDS_MAX", 1)
    await put(store, AgentRow, {"uid": "alive", "namespace": "d", "name": "n", "changed_at": 1.0})
    await put(store, TurnRow, *[turn(f"s{n}", "alive", 1.0 + n, "start") for n in range(15)])
    await put(store, TurnRow, *[turn(f"t{n}", "alive", 50.0 + n) for n in range(15)])
    await put(store, EventRow, *[event(n, 1.0) for n in range(25)])
    sweep = sweeper(store)
    await sweep.sweep(NOW)
    assert len(await left(store, EventRow, "name")) == 15
    assert len(await left(store, TurnRow, "turn_id")) == 30
    for round_ in range(4):
        await sweep.sweep(NOW + round_)
    assert await left(store, TurnRow, "turn_id") == {f"s{n}" for n in range(15)}
    assert await left(store, EventRow, "name") == set()


def event(number: int, time: float) -> dict[str, Any]:
    return {"type": "x.y", "time": time, "kind": "Agent", "namespace": "d", "name": f"e{number}", "data": "{}"}


async def test_young_events_and_hosts_stay(store: Store) -> None:
    """Only what is older than its retention goes."""
    await put(store, EventRow, event(1, NOW - 31 * DAY), event(2, NOW - 29 * DAY))
    host = {"node": "n", "created_at": 1.0}
    await put(
        store,
        HostRow,
        host | {"host_id": "old", "ended_at": NOW - 8 * DAY},
        host | {"host_id": "young", "ended_at": NOW - DAY},
        host | {"host_id": "alive"},
    )
    await sweeper(store).sweep(NOW)
    assert await left(store, EventRow, "name") == {"e2"}
    assert await left(store, HostRow, "host_id") == {"young", "alive"}


async def test_messages_wait_for_the_slowest_reader(store: Store) -> None:
    """Old messages go up to the slowest subscription's place, never further; young ones stay."""
    channel = {"namespace": "d", "retention_s": DAY}
    await put(store, ChannelRow, channel | {"uid": "free", "name": "free"}, channel | {"uid": "read", "name": "read"})
    message: dict[str, Any] = {"body": "{}"}
    for uid in ("free", "read"):
        ages = [NOW - 2 * DAY] * 6 + [NOW - 10.0] * 2
        rows = [
            message | {"channel": uid, "position": n, "message_id": f"{uid}{n}", "accepted_at": at}
            for n, at in enumerate(ages, 1)
        ]
        await put(store, ChannelMessageRow, *rows)
    for agent, position in (("fast", 8), ("slow", 3)):
        await put(store, SubscriptionRow, {"channel": "read", "agent": agent, "position": position, "since": 1.0})
    await sweeper(store).sweep(NOW)
    assert await left(store, ChannelMessageRow, "message_id") == {"free7", "free8"} | {f"read{n}" for n in range(4, 9)}


def letter(turn_id: str | None, at: float, name: str = "n") -> dict[str, Any]:
    about = {"agent": f"uid-{name}", "namespace": "d", "name": name, "body": "{}", "reason": "R", "detail": "no"}
    return about | {"message_id": f"m-{turn_id}", "turn_id": turn_id, "at": at}


async def test_old_dead_letters_go_and_it_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By so many at a time; young ones stay, and that of a living agent's start, which its condition rests on."""
    monkeypatch.setattr(retention, "ROWS_MAX", 4)
    await put(store, AgentRow, {"uid": "alive", "namespace": "d", "name": "n", "changed_at": 1.0})
    started = [turn(f"start-{it}", it, 1.0, "start") | {"outcome": "failed"} for it in ("alive", "gone")]
    await put(store, TurnRow, *started, turn("a1", "alive", NOW - DAY))
    old = NOW - 91 * DAY
    await put(
        store,
        DeadLetterRow,
        letter("start-alive", old),
        letter("start-gone", old, "gone"),
        *[letter(f"t{n}", old + n) for n in range(7)],
        letter(None, old + 9, "nowhere"),
        letter("a1", NOW - DAY),
    )
    sweep = sweeper(store)
    await sweep.sweep(NOW)
    await sweep.sweep(NOW + 1)
    assert await left(store, DeadLetterRow, "turn_id") == {"start-alive", "a1"}
    rows = await store.read(lambda session: [(it.name, orjson.loads(it.data)) for it in session.exec(select(EventRow))])
    assert sum(data["messages"] for _, data in rows) == 9
    assert {name for name, _ in rows} == {"n", "gone", "nowhere"}
    times = [it for name, data in rows if name == "n" for it in (data["first_at"], data["last_at"])]
    assert (min(times), max(times)) == (old, old + 6)
    await put(store, DeadLetterRow, letter("late", old, "late"))
    await sweep.sweep(NOW + 2)
    assert await left(store, DeadLetterRow, "turn_id") == {"start-alive", "a1"}, "it stood behind a young one"
    await sweep.sweep(NOW + 90 * DAY)
    assert await left(store, DeadLetterRow, "turn_id") == {"start-alive"}


async def test_a_sweep_keeps_up_with_what_comes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is too old, one sweep takes it, in units of a bounded size; what is young stays."""
    monkeypatch.setattr(retention, "ROWS_MAX", 10)
    await put(store, TurnRow, *[turn(f"t{n}", "a", 1.0 + n) for n in range(35)], turn("young", "a", NOW - 1))
    await put(store, EventRow, *[event(n, 1.0) for n in range(45)], event(99, NOW - 1))
    await sweeper(store).sweep(NOW)
    assert await left(store, TurnRow, "turn_id") == {"young"}
    assert await left(store, EventRow, "name") == {"e99"}


async def test_turns_are_archived_before_they_go(store: Store, tmp_path: Path) -> None:
    """Each turn that goes is a line with its journal; a line that was cut short is taken off; no folder, no removal."""
    archive = Archive(tmp_path / "archive")
    sweep = Retention(store, turn_retention_s=7 * DAY, event_retention_s=30 * DAY, archive=archive)
    await put(store, TurnRow, turn("t1", "a", 1.0), turn("young", "a", NOW - 1))
    entry = {"turn_id": "t1", "branch": "0", "kind": "send", "body": "{}", "recorded_at": 1.0}
    await put(store, JournalRow, *[entry | {"position": it} for it in (1, 0)])
    await sweep.sweep(NOW)
    (path,) = archive.folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("ab") as file:
        file.write(b'{"turn_id": "t2", "jou')
    await put(store, TurnRow, turn("t2", "a", 2.0))
    await sweep.sweep(NOW)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [(it["turn_id"], [at["position"] for at in it["journal"]]) for it in lines] == [("t1", [0, 1]), ("t2", [])]
    sweep.archive = Archive(path)  # where a file stands, there is no folder
    await put(store, TurnRow, turn("t3", "a", 3.0))
    with pytest.raises(Refusal, match="archived"):
        await sweep.sweep(NOW)
    assert await left(store, TurnRow, "turn_id") == {"t3", "young"}
