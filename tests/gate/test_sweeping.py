"""What the gate does again and again, alone: a thing that is broken keeps no other from being done."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.effects import execution as executing
from controlplane.effects import ownership as owning
from controlplane.effects.cancelling import Cancelling
from controlplane.effects.execution import Execution
from controlplane.effects.gate import Gate
from controlplane.effects.ownership import Ownership
from controlplane.effects.slots import Slot
from controlplane.effects.timers import Timers
from controlplane.mesh import delivery as delivering
from controlplane.mesh import events as watched
from controlplane.mesh.delivery import Delivery
from controlplane.mesh.events import Events
from controlplane.store import statements as sql
from controlplane.store import watching
from tests.gate.running import true

pytestmark = pytest.mark.anyio


def _due(name: str, every_s: float | None) -> tuple[Any, ...]:
    return "agent_a", name, 1, time.time() - 1, every_s, "1", None, None, "fire_once", 0, "default", "a"


def _timers(*due: tuple[Any, ...], next_at: float | None = None, slot: Any = None) -> tuple[Timers, list[Any]]:
    """Timers that find these due, and what they commit and ring."""
    seen: list[Any] = []

    def one(query: str, *_: Any) -> tuple[Any, ...] | None:
        if query == sql.AWAIT_ROW:
            return "agent_a", "turn_1", "0", 0, "sleep", "slept", "null", 1.0
        return (next_at,) if query == sql.NEXT_TIMER and next_at is not None else None

    node = SimpleNamespace(
        reader=SimpleNamespace(rows=lambda query, *_: list(due) if query == sql.DUE_TIMERS else [], one=one),
        clock=time.time,
        commit=lambda unit, rows, *_: seen.append([row[0] for row in rows]),
        slots=SimpleNamespace(load=lambda _: None, get=lambda _: slot),
        ownership=SimpleNamespace(ring=seen.append),
        delaying=SimpleNamespace(due=lambda _: [], paused_until=0.0),
    )
    return Timers(node), seen  # type: ignore[arg-type]


async def test_a_timer_that_can_not_fire_is_told_and_set_aside() -> None:
    """The others fire; it is written that it is due no more, and why."""
    timers, committed = _timers(_due("broken", 0.0), _due("fine", None))
    timers.look()
    assert committed == [[sql.TIMER_ADVANCE, sql.EVENT], [sql.TIMER_END, sql.PUT]]
    timers.end()


async def test_many_looks_leave_one_that_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look by the sweep takes the place of the one that was planned."""
    planned: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()
    later = loop.call_later

    def call_later(*given: Any) -> asyncio.TimerHandle:
        planned.append(later(*given))
        return planned[-1]

    monkeypatch.setattr(loop, "call_later", call_later)
    timers, _ = _timers(next_at=time.time() + 60)
    for _ in range(20):
        timers.look()
    assert sum(not it.cancelled() for it in planned) == 1
    timers.end()


async def test_an_answer_rings_an_agent_whose_slot_knows_no_turn() -> None:
    """The slot was made by whoever wrote the answer, without a look at the turn that waits."""
    timers, rung = _timers(slot=SimpleNamespace(turn=None))
    timers.resolved("await_1")
    assert rung == ["agent_a"]


async def test_a_question_that_is_cancelled_while_its_agent_leaves_is_looked_at_again() -> None:
    """Its release is on the way, and nobody else rings for a turn that is for nobody."""
    slot = SimpleNamespace(state="leaving", turn=None, more=False)
    cancelling = Cancelling(SimpleNamespace(slots=SimpleNamespace(get=lambda _: slot)))  # type: ignore[arg-type]
    cancelling.cancelled([("agent_a", "await_1")])
    assert slot.more


async def test_a_part_of_a_sweep_that_fails_keeps_no_other() -> None:
    """Whatever it raises; and the sweep itself goes on."""
    done: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError

    def looked(what: str) -> Any:
        return lambda: done.append(what)

    node: Any = SimpleNamespace(
        timers=SimpleNamespace(look=broken, rings=broken),
        ownership=SimpleNamespace(sweep=looked("agents")),
        upgrading=SimpleNamespace(sweep=broken),
        computing=SimpleNamespace(look=looked("computes")),
        delivery=SimpleNamespace(sweep=looked("channels")),
        events=SimpleNamespace(look=looked("events")),
        scopes=SimpleNamespace(sweep=looked("scopes")),
    )
    Gate._sweep(SimpleNamespace(), node)  # type: ignore[arg-type]
    assert done == ["agents", "computes", "channels", "events", "scopes"]


def _slot(uid: str = "agent_a") -> Slot:
    return Slot(uid, "default", "a", 1, 0, 0, None, False, None, {"code": {"digest": "d"}})  # noqa: FBT003


async def test_who_waits_for_an_agent_still_does_when_it_could_not_be_acquired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another gate had touched its row: it is acquired anew, and woken or moved as it was asked to be."""
    monkeypatch.setattr(owning, "TROUBLE_S", 0.0)
    before, fresh, told, pumped = _slot(), _slot(), [], []
    before.keep, before.move, before.on_awake = True, object(), [lambda: told.append(True)]  # type: ignore[assignment]
    node: Any = SimpleNamespace(slots=SimpleNamespace(holds=lambda _: True, load=lambda _: fresh))
    ownership = Ownership(node)
    monkeypatch.setattr(ownership, "forget", lambda _: None)
    monkeypatch.setattr(ownership, "pump", pumped.append)
    ownership._acquired(before, "h0", 1, "conflict", "")
    await true(lambda: pumped)
    assert (pumped, fresh.keep, fresh.move) == ([fresh], True, before.move)
    fresh.tell_awake()
    assert told == [True]


@pytest.mark.parametrize("resent", [False, True])
async def test_an_effect_that_waits_for_its_lease_is_known_as_not_sent(
    monkeypatch: pytest.MonkeyPatch, *, resent: bool
) -> None:
    """From the start on: its host may die meanwhile, and a replay have it sent, which then is nobody else's."""
    monkeypatch.setattr(executing, "AGAIN_S", 0.0)
    over: list[Any] = []
    node: Any = SimpleNamespace(effectors={}, steady=time.monotonic, budgeting=SimpleNamespace(over=over.append))
    execution, slot, key = Execution(node), _slot(), ("turn_1", "0", 0)
    slot.turn = SimpleNamespace(turn_id="turn_1")  # type: ignore[assignment]
    slot.host = SimpleNamespace(alive=lambda _: False)  # type: ignore[assignment]
    slot.effects.add(("0", 0))
    frame: Any = SimpleNamespace(turn_id="turn_1", branch="0", position=0, epoch=0)
    act: Any = None
    execution._start(slot, frame, act, 0.0)
    assert key in execution._unsent
    slot.host = None
    if resent:
        execution._unsent.discard(key)
    await asyncio.sleep(0.01)
    assert (key in execution._unsent, len(over)) == ((False, 0) if resent else (True, 1))


@pytest.mark.parametrize("unsent", [False, True])
@pytest.mark.parametrize("outcome", ["conflict", "error", "ok"])
async def test_an_effect_whose_resend_is_not_committed_is_still_known_as_not_sent(
    monkeypatch: pytest.MonkeyPatch, outcome: str, *, unsent: bool
) -> None:
    """Where it was known; what may have been sent before stays in doubt."""
    written: list[Any] = []
    node: Any = SimpleNamespace(
        bounds=SimpleNamespace(send_within_s=1.0), clock=time.time, steady=time.monotonic, effectors={},
        budgeting=SimpleNamespace(over=lambda _: None, reserve=lambda *_: None),
        ownership=SimpleNamespace(fenced=lambda *_: None), turns=SimpleNamespace(wrote=lambda _: None),
        commit=lambda unit, rows, done: written.append(done),
    )  # fmt: skip
    execution, key = Execution(node), ("turn_1", "0", 0)
    monkeypatch.setattr(executing.journaling, "intent_again", lambda *_: [])
    monkeypatch.setattr(execution, "_start", lambda *_: None)
    frame: Any = SimpleNamespace(turn_id="turn_1", branch="0", position=0, epoch=0)
    act: Any = SimpleNamespace(unsent=unsent, effector=None)
    turn: Any = None
    execution._resend(_slot(), turn, frame, act, None)
    written[0](outcome, "")
    assert (key in execution._unsent) == (unsent and outcome != "ok")


async def test_agents_that_can_not_go_on_hide_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are looked at in one go: at a start one window follows the other, then each sweep has one.

    Nor does one that is broken.
    """
    monkeypatch.setattr(owning, "WAITING_MAX", 2)
    monkeypatch.setattr(owning, "BRANCHED_MAX", 2)
    uids = [f"agent_{n}" for n in range(5)]
    rung: list[str] = []

    def rows(query: str, *params: Any) -> list[tuple[Any, ...]]:
        if query == sql.OWNED_AGENTS:
            return []
        found = [uid for uid in uids if uid > params[0]][: params[1]]
        waits = query == sql.WAITING_AGENTS
        return [(uid, n, "default") for n, uid in enumerate(found)] if waits else [(f"of {uid}",) for uid in found]

    broken, fine, pumped = _slot("broken"), _slot("fine"), list[Slot]()
    slots = SimpleNamespace(all=lambda: [broken, fine], get=lambda _: None)
    node: Any = SimpleNamespace(slots=slots, reader=SimpleNamespace(rows=rows), steady=time.monotonic)
    ownership = Ownership(node)

    def ring(uid: str) -> None:
        rung.append(uid)
        if uid == "agent_1":
            raise ZeroDivisionError

    def pump(slot: Slot) -> None:
        pumped.append(slot)
        if slot is broken:
            raise ZeroDivisionError

    monkeypatch.setattr(ownership, "ring", ring)
    monkeypatch.setattr(ownership, "pump", pump)
    ownership.sweep()
    assert pumped == [broken, fine]
    await true(lambda: [it for it in rung if it in uids] == uids)
    branched = [it for it in rung if it.startswith("of")]
    assert branched == [f"of {it}" for it in uids[: len(branched)]]
    rung.clear()
    ownership.sweep()
    await asyncio.sleep(0)
    assert [it for it in rung if it in uids] == uids[:2]


async def test_members_whose_inbox_is_full_hide_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep goes on behind those that the one before has looked at."""
    monkeypatch.setattr(delivering, "SWEPT_MAX", 2)
    members = [("channel", f"agent_{n}", 0, 2, 0.0, 1, "default", "news", f"{n}", 1) for n in range(5)]
    brought: list[Any] = []

    def one(_: str, agent: str, most: int) -> tuple[int]:
        return (most if agent < "agent_4" else 0,)

    def rows(query: str, *at: int) -> list[Any]:
        return members[at[1] : at[1] + at[0]] if query.startswith(watching.LAGGING) else []

    reader: Any = SimpleNamespace(rows=rows, one=one)
    delivery = Delivery(reader, lambda *given: brought.append(given), print, time.time, 10)
    for _ in range(3):
        delivery.sweep()
    assert len(brought) == 1
    delivery.sweep()
    assert len(brought) == 1, "the next round begins at the first"


async def test_an_event_comes_to_all_who_watch_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two places in one go; what came in the middle of a round has a round of its own."""
    monkeypatch.setattr(watched, "PLACES_MAX", 2)
    told: dict[str, int] = {}
    keys = [(f"agent_{n}", "w") for n in range(5)]
    place = (0, 0, 0.0, '{"kind":null,"name":null,"own":true,"types":[]}', 0.0, 1, "default", "a", 7)
    happened = (7, "x", time.time(), "Agent", "b", None, None, None, "{}", None)

    def rows(query: str, *params: Any) -> list[tuple[Any, ...]]:
        if query == watching.EVENTS_AFTER:
            return [happened]
        behind = [key for key in keys if key > (params[0], params[1])][: params[2]]
        return [(*key, told.get(key[0], 0), *place[1:]) for key in behind]

    def commit(_unit: str, given: Any, done: Any, _lane: int) -> None:
        told[given[0][1][2]] = given[0][1][0]
        done("ok", "")

    reader: Any = SimpleNamespace(rows=rows, one=lambda *_: (0,))
    events = Events(reader, commit, lambda _: None, time.time, 10)
    events.kick(0.0)
    await true(lambda: sorted(told) == [key[0] for key in keys])
    await true(lambda: events._from == ("", "") and not events._owed)
    events.end()
