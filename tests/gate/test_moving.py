"""Agents that go to another host, and hosts that are emptied: nothing lost, nothing doubled, a short gap."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.operations.living import moving
from schemas.problem import Refusal
from tests.gate.running import RunningGate, running, true
from tests.gate.zoo import SOURCE
from tests.operations.plane import Plane

pytestmark = pytest.mark.anyio
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}
STAYS = 60_000


async def migrate(gate: RunningGate, name: str, to_host: str | None = None, **more: Any) -> dict[str, Any]:
    asked = {"principal": "test", "to_host": to_host, "warm": True, **more}
    return await gate.client.control("migrate", f"agent_{name}", asked)


async def drain(gate: RunningGate, host_id: str, **more: Any) -> dict[str, Any]:
    return await gate.client.control("drain", host_id, {"principal": "test", **more})


async def owner(gate: RunningGate, name: str) -> tuple[str | None, int]:
    row = (await gate.rows("SELECT owner, epoch FROM agent WHERE name = :name", name=name))[0]
    return row[0], row[1]


async def hosts(gate: RunningGate, many: int) -> list[str]:
    """The ids of the hosts, once they are there."""
    rows = await gate.until("SELECT host_id FROM host WHERE ended_at IS NULL", lambda it: len(it) >= many)
    return [row[0] for row in rows]


async def test_an_agent_moves_between_its_turns(database_url: str) -> None:
    """Released here, acquired there under the next epoch; who sends meanwhile notices nothing."""
    async with running(database_url, hosts=2) as gate:
        code = await gate.code(SOURCE)
        await hosts(gate, 2)
        await gate.agent("counter", code, "Counter", suspend_after_ms=STAYS)
        await gate.agent("ledger", code, "Ledger", suspend_after_ms=STAYS)
        assert await gate.ask("counter", 0, "m0") == 1
        before, epoch = await owner(gate, "counter")
        sending = asyncio.create_task(_count(gate, range(1, 60)))
        moved = await migrate(gate, "counter")
        assert moved["moved"], moved
        assert (moved["from_host"], moved["epoch"], moved["waits_for"]) == (before, epoch + 1, None)
        assert moved["to_host"] not in (before, None)
        back = await migrate(gate, "counter", before)
        assert (back["moved"], back["to_host"]) == (True, before)
        again = await migrate(gate, "counter", before)
        assert (again["moved"], again["from_host"], again["to_host"]) == (False, before, before)
        await sending
        seen = await gate.ask("counter", "count", "c1")
        assert seen["got"] == list(range(60)), "in order, each once, the start too"
        assert (seen["seen"], seen["started"]) == (60, 1)
        told = await gate.rows("SELECT data FROM event WHERE type = 'agent.migrated' ORDER BY cursor")
        assert [orjson.loads(row[0])["to"] for row in told] == [moved["to_host"], before]
        assert await gate.rows("SELECT message_id FROM turn WHERE outcome <> 'committed'") == []


async def _count(gate: RunningGate, numbers: range) -> None:
    for n in numbers:
        await gate.send("counter", n, f"m{n}")
        await asyncio.sleep(0.002)


async def test_a_parked_turn_moves_with_its_agent(database_url: str) -> None:
    """It is replayed up to its await on the other host, and goes on there when the answer comes."""
    async with running(database_url, hosts=2) as gate:
        code = await gate.code(SOURCE)
        await hosts(gate, 2)
        await gate.agent("echo", code, "Echo")
        await gate.agent("asker", code, "Asker", suspend_after_ms=STAYS)
        asked = asyncio.create_task(gate.ask("asker", {"whom": "echo", "what": "x", "sleep": 1.0}, "a1"))
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'parked' AND entries = 2", bool)
        moved = await migrate(gate, "asker")
        assert moved["moved"], moved
        assert (await owner(gate, "asker"))[0] == moved["to_host"]
        assert await asked == ["x", 1]
        assert (await owner(gate, "asker"))[0] == moved["to_host"]
        assert await gate.rows("SELECT attempts, entries FROM turn WHERE message_id = 'a1'") == [(1, 2)]


async def test_a_suspended_agent_is_not_woken_by_its_move(database_url: str) -> None:
    """Only its placement changes; what comes next wakes it there."""
    async with running(database_url, hosts=2) as gate:
        code = await gate.code(SOURCE)
        ids = await hosts(gate, 2)
        await gate.agent("echo", code, "Echo", suspend_after_ms=0)
        await gate.until("SELECT 1 FROM agent WHERE owner IS NULL AND version = 1", bool)
        for n, host_id in enumerate([*ids, ids[0]]):
            before = await owner(gate, "echo")
            moved = await migrate(gate, "echo", host_id)
            assert (moved["moved"], moved["from_host"], moved["to_host"]) == (False, None, host_id)
            assert await owner(gate, "echo") == before == (None, before[1]), "nothing was woken"
            await gate.client.control("wake", "agent_echo", {})
            await gate.until("SELECT owner FROM agent", lambda rows, to=host_id: rows[0][0] in (None, to))  # type: ignore[misc]
            assert await gate.ask("echo", n, f"e{n}") == n
            run = await gate.rows("SELECT epoch FROM turn WHERE message_id = :it", it=f"e{n}")
            await gate.until("SELECT 1 FROM agent WHERE owner IS NULL", bool)
            assert run[0][0] > before[1]
        placed = await gate.rows("SELECT data FROM event WHERE type = 'agent.placed' ORDER BY cursor")
        assert [orjson.loads(row[0])["host"] for row in placed] == [*ids, ids[0]]
        assert (await migrate(gate, "echo"))["to_host"] is None
        assert await gate.rows("SELECT placement FROM agent") == [(None,)]


async def test_an_agent_with_an_open_effect_waits_and_says_so(quick_url: str, tmp_path: Path) -> None:
    """It does not leave before its turn rests; the effect is done once, and then it goes."""
    async with running(quick_url, hosts=2, move_wait_s=0.3) as gate:
        code = await gate.code(SOURCE)
        await hosts(gate, 2)
        await gate.agent("noter", code, "Noter", suspend_after_ms=STAYS, **GRANTS)
        notes = tmp_path / "notes"
        effect = {"effect": "notes.once", "path": str(notes), "text": "x", "wait_s": 1.5}
        asked = asyncio.create_task(gate.ask("noter", effect, "n1"))
        await true(notes.exists)
        here = (await owner(gate, "noter"))[0]
        waits = await migrate(gate, "noter")
        assert (waits["moved"], waits["from_host"]) == (False, here)
        assert waits["waits_for"].startswith("it waits for effect 0 of turn_")
        assert await asked == {"noted": "x"}
        await gate.until("SELECT owner FROM agent", lambda rows: rows[0][0] == waits["to_host"])
        assert len(notes.read_text().splitlines()) == 1
        assert await gate.rows("SELECT attempts FROM turn WHERE message_id = 'n1'") == [(1,)]


async def test_another_host_is_asked_for_where_there_is_none(quick_url: str) -> None:
    """The agent stays where it is until one has come; when none comes, that is what is said."""
    async with running(quick_url, move_wait_s=0.3) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo", suspend_after_ms=STAYS)
        assert await gate.ask("echo", 1, "e1") == 1
        here = (await owner(gate, "echo"))[0]
        waits = await migrate(gate, "echo")
        assert (waits["moved"], waits["from_host"], waits["to_host"]) == (False, here, None)
        assert "another host" in waits["waits_for"]
        assert await gate.ask("echo", 2, "e2") == 2
    async with running(quick_url, hosts=0) as gate:
        first = gate.host()
        assert await gate.ask("echo", 3, "e3") == 3
        moving = asyncio.create_task(migrate(gate, "echo"))
        await asyncio.sleep(0.1)
        gate.host()
        assert (await moving)["moved"]
        assert first.poll() is None


async def test_a_host_that_can_not_take_it_is_refused(quick_url: str) -> None:
    """One that is not there, one of other code, one that is foreign, one that the asker may not see."""
    async with running(quick_url, hosts=3) as gate:
        code, other = await gate.code(SOURCE), await gate.code(SOURCE + "\n")
        await hosts(gate, 3)
        await gate.agent("echo", code, "Echo", suspend_after_ms=STAYS)
        await gate.agent("other", other, "Echo", suspend_after_ms=STAYS)
        await gate.agent("far", code, "Echo", namespace="elsewhere", suspend_after_ms=STAYS)
        for name in ("echo", "other"):
            await gate.ask(name, 1, f"{name}-1")
        await gate.send("far", 1, "far-1", namespace="elsewhere")
        await gate.until("SELECT 1 FROM turn WHERE message_id = 'far-1'", bool)
        whose = {name: (await owner(gate, name))[0] for name in ("echo", "other", "far")}
        gate.host()
        warm = next(it for it in await hosts(gate, 4) if it not in whose.values())
        cases = [
            ("nowhere", True, "NOT_FOUND"),
            (whose["far"], True, "NOT_FOUND"),
            (warm, False, "NOT_FOUND"),
            (whose["other"], True, "UNFIT_HOST"),
        ]
        for to, warm_seen, reason in cases:
            for dry_run in (True, False):
                with pytest.raises(Refusal) as refused:
                    await migrate(gate, "echo", to, warm=warm_seen, dry_run=dry_run)
                found = refused.value.problem
                assert (found.reason, found.field) == (reason, "/to_host"), found.detail
                assert found.next[0].operation == "hosts.list"
        assert (await migrate(gate, "echo", warm, dry_run=True))["moved"] is False
        assert (await owner(gate, "echo"))[0] == whose["echo"]


async def test_a_drained_host_ends_and_its_agents_go_on(quick_url: str, tmp_path: Path) -> None:
    """Idle, parked and running ones leave, each where it rests; a held effect delays nobody else."""
    async with running(quick_url, hosts=1, move_wait_s=0.5) as gate:
        code = await gate.code(SOURCE)
        host_id = (await hosts(gate, 1))[0]
        for n in range(70):  # more than a batch
            await gate.agent(f"echo-{n}", code, "Echo", suspend_after_ms=STAYS)
        await gate.agent("asker", code, "Asker", suspend_after_ms=STAYS)
        await gate.agent("noter", code, "Noter", suspend_after_ms=STAYS, **GRANTS)
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'committed'", lambda rows: len(rows) == 72)
        for n in range(70):  # who was told of a new spec meanwhile has left after its first turn
            await gate.client.control("wake", f"agent_echo-{n}", {})
        asked = asyncio.create_task(gate.ask("asker", {"whom": "echo-1", "what": "x", "sleep": 2.0}, "a1"))
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'parked' AND entries = 2", bool)
        gate.host()
        ids = await hosts(gate, 2)
        notes = tmp_path / "notes"
        effect = {"effect": "notes.once", "path": str(notes), "text": "x", "wait_s": 3.0}
        noted = asyncio.create_task(gate.ask("noter", effect, "n1"))
        await true(notes.exists)
        assert (await drain(gate, host_id, dry_run=True))["agents"] == 72
        while (waits := await drain(gate, host_id))["agents"] > 1:
            assert not waits["done"]
        assert (waits["done"], waits["agents"]) == (False, 1), waits
        assert waits["waits_for"][0].startswith("default/noter: it waits for effect 0")
        assert await gate.ask("echo-1", 5, "e1") == 5
        ended = await drain(gate, host_id)
        while not ended["done"]:
            ended = await drain(gate, host_id)
        assert (await noted, await asked) == ({"noted": "x"}, ["x", 1])
        assert await asyncio.to_thread(gate.hosts[0].wait, 10) == 0
        assert len(notes.read_text().splitlines()) == 1
        owners = {row[0] for row in await gate.rows("SELECT owner FROM agent WHERE owner IS NOT NULL")}
        assert owners <= {it for it in ids if it != host_id}
        kinds = await gate.rows("SELECT type FROM event WHERE name = :it ORDER BY cursor", it=host_id)
        assert [row[0] for row in kinds] == ["host.started", "host.draining", "host.retired"]
        assert (await drain(gate, host_id))["done"], "saying it again changes nothing"
        assert len(await gate.rows("SELECT 1 FROM event WHERE type = 'host.retired'")) == 1


async def test_a_drain_goes_on_after_the_gate_was_killed(quick_url: str) -> None:
    """That a host shall be empty is a record: the next gate empties it."""
    async with running(quick_url, hosts=1, move_wait_s=0.1) as gate:
        code = await gate.code(SOURCE)
        host_id = (await hosts(gate, 1))[0]
        await gate.agent("slow", code, "Slow", suspend_after_ms=STAYS)
        asked = asyncio.create_task(gate.ask("slow", 1.0, "s1"))
        await gate.until("SELECT 1 FROM agent WHERE owner IS NOT NULL AND version = 1", bool)
        await asyncio.sleep(0.2)
        assert not (await drain(gate, host_id))["done"]
        gate.kill()
        gate.start()
        gate.host()
        assert await asked == "done"
        assert await asyncio.to_thread(gate.hosts[0].wait, 20) is not None
        await gate.until(f"SELECT ended_at FROM host WHERE host_id = '{host_id}'", lambda rows: rows[0][0] is not None)


async def test_a_selection_goes_by_its_change_over_a_gate_that_was_killed(quick_url: str) -> None:
    """No other host is there: what waits is told again by its change, and every claim is held in the end."""
    async with running(quick_url, move_wait_s=0.1) as gate:
        code = await gate.code(SOURCE)
        for n in range(3):
            await gate.agent(f"echo-{n}", code, "Echo", suspend_after_ms=STAYS)
            assert await gate.ask(f"echo-{n}", n, f"e{n}") == n
        here = (await owner(gate, "echo-0"))[0]
        plane = Plane(gate.store)
        plane.gate = gate.client  # type: ignore[assignment]
        plane.handlers |= moving.handlers(gate.store, gate.client, plane.doorbell)
        plane.restart()
        asked = {"from_host": here, "batch": 2}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moving, "WAIT_S", 0)
            begun = await plane.call("agents.migrate", **asked)
        for _ in range(3):
            await step(plane)
        assert (await plane.call("changes.get", change_id=begun["change_id"]))["outcome"] == "open"
        assert {(await owner(gate, f"echo-{n}"))[0] for n in range(3)} == {here}
        gate.kill()
        gate.start()
        await gate.client.up()
        gate.host()
        async with asyncio.timeout(30):
            while not (await plane.call("changes.get", change_id=begun["change_id"]))["done"]:
                await step(plane)
        assert (await plane.call("changes.get", change_id=begun["change_id"]))["outcome"] == "verified"
        assert here not in {(await owner(gate, f"echo-{n}"))[0] for n in range(3)}
        for n in range(3):
            assert await gate.ask(f"echo-{n}", n, f"again{n}") == n


async def step(plane: Plane) -> None:
    """Both loops, once."""
    plane.now += 0.01
    await plane.reconciler.tick()
    plane._look_now()
    await plane.verifier.tick()
    await asyncio.sleep(0.05)
